"""A search whose rows are in PostgreSQL: the journal's promises hold, and no password is written.

python -m pytest tests/sweep/test_database.py       # the server: tools/debian.sh postgresql
"""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.sweep import loads
from mlmodeldev.sweep.search import main
from mlmodeldev.trial.task import TrialTask
from tests.sweep import postgresql
from tests.sweep.searching import SWEEP, Hunt, family
from tests.sweep.test_search import begin, drive, succeed

needs_server = pytest.mark.skipif(bool(postgresql.missing()), reason=postgresql.missing())


@pytest.fixture(autouse=True)
def _psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its packages, behind the locked ones, for these tests alone."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(postgresql.PACKAGES)])


@pytest.fixture(scope="module")
def server():
    """One server for all tests of this file; a search of each folder is its own."""
    made = postgresql.Server()
    yield made
    made.remove()


@pytest.fixture
def hunt(server, tmp_path, monkeypatch):
    """A search of four trials in the server's database."""
    monkeypatch.setenv("PGPASSFILE", str(server.password_file))
    path = f"{os.environ.get('PYTHONPATH', '')}:{postgresql.PACKAGES}"
    monkeypatch.setenv("PYTHONPATH", path)  # the driver, for the workers
    return Hunt(tmp_path, cap=4, more=storage(server.url))


def storage(url):
    """The part of a sweep file that names the database."""
    return f"controller: {{type: cloud, storage: '{url}'}}\n"


def rows(hunt):
    """What the database has of a search."""
    worker = begin(hunt)
    with worker.journal.lock:
        result = worker.study.rows()
    worker.close()
    return result


@needs_server
def test_workers_die_and_nothing_is_lost_doubled_or_printed(hunt):
    slow = {"EPOCHS": "6", "SECONDS_EACH": "0.05"}
    workers = [hunt.start("--linger", **slow) for _ in range(2)]
    folder, pid = hunt.running()
    owner = next(w for w in workers if pid in family(w.pid))
    for each in family(owner.pid):  # the worker and its trial, as when a node dies
        os.kill(each, signal.SIGKILL)
    ended = [worker.communicate(timeout=100) for worker in workers]
    codes = [w.returncode for w in workers]
    assert codes == [-9 if w is owner else 0 for w in workers], [e[1] for e in ended]

    assert hunt.states() == ["done"] * 4
    written = rows(hunt)
    assert [row.state.name for row in written] == ["COMPLETE"] * 4
    assert sorted(row.user_attrs["id"] for row in written) == [f.name for f in hunt.trials]
    for row in written:
        entries = log(hunt.folder / row.user_attrs["id"])
        assert row.value == max(entry["val/accuracy"] for entry in entries)
        begun = (hunt.folder / row.user_attrs["id"] / "begun.txt").read_text().splitlines()
        assert len(begun) == (2 if row.user_attrs["id"] == folder.name else 1)
        epochs = [entry["epoch"] for entry in entries]
        assert epochs == list(range(1, 7)), "a killed trial goes on, not anew"
    secret = postgresql.PASSWORD.encode()
    files = [file for file in hunt.here.rglob("*") if file.is_file() and not file.is_symlink()]
    assert not [file for file in files if secret in file.read_bytes()]
    assert postgresql.PASSWORD not in "".join(out + err for out, err in ended)


def log(folder):
    """A trial's ``log.json``."""
    return json.loads((folder / "log.json").read_text())


@needs_server
def test_the_same_search_as_in_a_journal_also_where_the_database_is_lost(hunt, server, tmp_path):
    (tmp_path / "beside").mkdir()
    beside = Hunt(tmp_path / "beside", cap=4)
    journal = begin(beside)
    assert drive(journal) == drive(begin(hunt)) == 4
    with journal.journal.lock:
        expected = [(r.user_attrs["id"], r.params, r.value) for r in journal.study.rows()]
    assert [(r.user_attrs["id"], r.params, r.value) for r in rows(hunt)] == expected

    # another database in its place: the rows are made anew from the folders, and no trial is
    (hunt.folder / ".search" / "database.json").unlink()
    assert drive(begin(hunt)) == 0
    assert {r.user_attrs["id"] for r in rows(hunt)} == {name for name, _, _ in expected}

    # a server that dies between two trials and comes back
    hunt.file.write_text(hunt.file.read_text().replace("run_cap: 4", "run_cap: 5"))
    worker = begin(hunt)
    task = worker.take()
    assert isinstance(task, TrialTask)
    server.stop()
    server.start()
    assert worker.report(task, succeed(task, 1)) is None
    assert [row.state.name for row in rows(hunt)] == ["COMPLETE"] * 5


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://lab:hidden@db/searches", "it belongs into ~/.pgpass or PGPASSWORD"),
        ("postgresql://lab@db/searches?password=hidden", "it belongs into ~/.pgpass"),
        ("sqlite:///runs/search.db", "a lock that works on network file systems"),
        ("runs/search.db", "the search's journal is already"),
        ("mysql://lab@db/searches", "'mysql': only postgresql://USER@HOST/NAME is"),
        ("postgresql://lab@db", "names no database"),
    ],
)
def test_another_address_is_refused_and_not_shown(url, message):
    text = SWEEP.format(method="bayes", cap=2) + storage(url)
    with pytest.raises(UsageError, match=r"controller\.storage") as refused:
        loads(text)
    assert message in str(refused.value)
    assert "hidden" not in str(refused.value)


@needs_server
def test_a_server_that_is_not_there_is_one_line_and_2(tmp_path, capsys):
    hunt = Hunt(tmp_path, cap=2, more=storage("postgresql://lab@127.0.0.1:1/searches"))
    assert main(hunt.words()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("search: postgresql://lab@127.0.0.1:1/searches: ")


def test_without_a_driver_its_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    hunt = Hunt(tmp_path, cap=2, more=storage("postgresql://lab@db/searches"))
    with pytest.raises(UsageError, match=r"pip install 'psycopg\[binary\]'"):
        begin(hunt)
