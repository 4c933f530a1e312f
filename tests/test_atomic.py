"""Files and folders appear whole or not at all, whatever happens to their writer."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.atomic import (
    atomic_write,
    remove_leftovers,
    replace_folder,
    write_json,
    write_text,
    writing_to,
)
from mlmodeldev.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys
from pathlib import Path
from mlmodeldev.atomic import whole_file, whole_folder
kind, path = sys.argv[1], Path(sys.argv[2])
with (whole_file(path, "w") if kind == "file" else whole_folder(path)) as target:
    file = target if kind == "file" else (target / "part").open("w")
    file.write("half of what is new")
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
"""


def kill_writer(kind: str, path: Path) -> None:
    """Start to write, and die by SIGKILL half-way."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.kill()
    assert writer.wait(30) == -signal.SIGKILL


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_keeps_its_old_content_when_its_writer_is_killed(tmp_path):
    path = tmp_path / "trial.json"
    write_text(path, "old")
    kill_writer("file", path)
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2  # and what the dead one left
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"trial.json"}


def test_a_first_file_is_not_there_at_all_when_its_writer_is_killed(tmp_path):
    kill_writer("file", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_keeps_its_old_content_when_its_writer_is_killed(tmp_path):
    path = tmp_path / "best"
    with replace_folder(path) as folder:
        (folder / "old").write_text("old")
    kill_writer("folder", path)
    assert names(path) == {"old"}
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"best"}


def test_a_file_is_seen_only_when_it_is_complete(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == {"file"}


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_write(path, "w") as file:
        file.write("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file"}


def test_text_is_utf8_in_any_locale_and_json_keeps_order(tmp_path):
    write_text(tmp_path / "text", "日本 é\n")
    assert (tmp_path / "text").read_bytes() == "日本 é\n".encode()
    write_json(tmp_path / "json", {"z": 1, "a": Path("/x"), "f": 0.1 + 0.2})
    text = (tmp_path / "json").read_text()
    assert list(json.loads(text)) == ["z", "a", "f"]
    assert json.loads(text) == {"z": 1, "a": "/x", "f": 0.30000000000000004}


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "best"
    with replace_folder(path) as folder:
        (folder / "old").mkdir()
        (folder / "old" / "file").write_text("old")
        assert not path.exists()
    with replace_folder(path) as folder:
        assert names(folder) == set()
        (folder / "new").write_text("new")
        assert names(path) == {"old"}
    assert names(path) == {"new"}
    assert names(path.parent) == {"best"}


def test_a_failing_writer_leaves_the_old_folder_and_no_other(tmp_path):
    path = tmp_path / "best"
    with replace_folder(path) as folder:
        (folder / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), replace_folder(path) as folder:
        (folder / "new").write_text("new")
        raise ZeroDivisionError
    assert names(path) == {"old"}
    assert names(tmp_path) == {"best"}


def test_leftovers_are_removed_and_everything_else_is_left(tmp_path):
    for name in (".a.host-1.tmp", "a.tmp", ".hidden", "trial.json"):
        (tmp_path / name).write_text("")
    (tmp_path / ".b.old.tmp").mkdir()
    (tmp_path / ".b.old.tmp" / "file").write_text("")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"a.tmp", ".hidden", "trial.json"}


# --- places that can't be written


def test_a_full_disk_is_told_in_one_line_and_the_old_file_stays(tmp_path):
    path = tmp_path / "trial.json"
    write_text(path, "old")
    full = os.open("/dev/full", os.O_WRONLY)
    with (
        pytest.raises(UsageError, match="no space left on the device") as error,
        atomic_write(path) as file,
    ):
        os.dup2(full, file.fileno())  # from here on every write meets a full disk
        file.write(b"x" * 100_000)
    os.close(full)
    assert str(error.value).startswith(f"{path}: ")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"trial.json"}


def test_a_file_size_limit_is_told_in_one_line_and_the_old_file_stays(tmp_path):
    path = tmp_path / "trial.json"
    write_text(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(UsageError, match="file-size limit"):
            write_text(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert names(tmp_path) == {"trial.json"}


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        write_text(tmp_path / "file" / "x", "")
    with (
        pytest.raises(UsageError, match="is a file, not a folder"),
        replace_folder(tmp_path / "file" / "best"),
    ):
        pass


def test_a_place_without_permission():
    with pytest.raises(UsageError, match=r"/sys/file: .*(permission|read-only)"):
        write_text(Path("/sys/file"), "")


def test_an_error_that_says_nothing_of_the_place_is_no_bad_input(tmp_path):
    with pytest.raises(ConnectionResetError), writing_to(tmp_path):
        raise ConnectionResetError(104, "reset by peer")
