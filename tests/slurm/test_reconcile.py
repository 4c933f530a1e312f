"""The declared sweep against its folder: what runs, what is left, what is told of; speed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm import sweep_diff
from mlmodeldev.slurm.local import TrialEntrySource
from mlmodeldev.slurm.sweep_state import reconcile, stop_trial, undeclared_folders
from mlmodeldev.sweep import loads
from mlmodeldev.trial.folder import TrialFolder

GRID = "name: g\nmethod: grid\nparameters: {optimizer.lr: {values: [0.1, 0.2, 0.3, 0.4, 0.5]}}\n"

OWNER = """
import sys, time
from pathlib import Path
from mlmodeldev.trial.folder import TrialFolder
TrialFolder(Path(sys.argv[1])).claim()
time.sleep(60)
"""


def write(folder, **record):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trial.json").write_text(json.dumps(record))


@pytest.fixture
def owner(tmp_path):
    """A process that owns a trial, which is the third of the grid."""
    folder = list(reconcile(loads(GRID), tmp_path))[2].folder
    folder.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)])
    deadline = time.monotonic() + 60
    while not (folder / "trial.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    yield process, folder
    process.kill()
    process.wait()


def test_what_is_missing_interrupted_or_dead_is_run_and_the_rest_left(owner, tmp_path, capsys):
    entries = list(reconcile(loads(GRID), tmp_path))
    write(entries[0].folder, state="done", metric={"name": "val/accuracy", "value": 0.5})
    write(entries[1].folder, state="failed")
    dead = {"host": os.uname().nodename, "pid": 2**22 - 1, "started": 1}
    write(entries[3].folder, state="running", owner=dead, lease=time.time() + 100)
    source = TrialEntrySource([entry.again() for entry in entries], "trainer", [])
    taken = []
    while (work := source.take()) is not None:
        taken.append(work.id)
    assert taken == [entries[i].trial.id for i in (3, 4)]
    output = capsys.readouterr().out
    assert "failed already; retry runs it again" in output
    source = TrialEntrySource([entries[1].again()], "trainer", [], retry=True)
    assert source.take().id == entries[1].trial.id
    assert "running elsewhere; left to it" in output
    assert "done already" in output


def test_undeclared_trials_are_named_and_stopped_on_request(owner, tmp_path, capsys, monkeypatch):
    process, folder = owner
    monkeypatch.setattr("mlmodeldev.slurm.sweep_diff.slurm_is_here", lambda: False)
    sweep_state = SimpleNamespace(
        entries=list(reconcile(loads(GRID.replace("0.3, ", "")), tmp_path)), folder=tmp_path / "g"
    )
    write(tmp_path / "g" / "zzz", state="done")
    assert undeclared_folders(sweep_state.entries, sweep_state.folder) == sorted(
        [folder, tmp_path / "g" / "zzz"]
    )
    assert sweep_diff.print_orphans(sweep_state, prune=False) == []
    assert "no longer declared" in capsys.readouterr().err
    assert process.poll() is None
    assert sweep_diff.print_orphans(sweep_state, prune=True) == [folder.name]
    assert process.wait(30) == -signal.SIGTERM
    assert (folder / "trial.json").exists()
    assert not stop_trial(folder), "nobody runs it any more"
    sweep_state.entries = list(reconcile(loads(GRID), tmp_path))
    (tmp_path / "g" / "zzz" / "trial.json").unlink()
    assert sweep_diff.print_orphans(sweep_state, prune=True) == []


def test_a_searchs_trials_are_those_that_were_begun(tmp_path):
    text = (
        "name: g\nmethod: bayes\nmetric: {name: val/loss}\n"
        "parameters: {optimizer.lr: {min: 0.1, max: 1.0}, training.seed: {value: 0}}\n"
    )
    sweep = loads(text)
    assert list(reconcile(sweep, tmp_path)) == []
    from mlmodeldev.sweep import Trial

    for created, lr in ((2.0, 0.2), (1.0, 0.3)):
        trial = Trial({"optimizer.lr": lr, "training.seed": 0}, sweep.naming)
        overrides = {**trial.overrides, "logger": "csv", "artefacts.sweep": "g"}
        write(tmp_path / "g" / trial.id, state="done", created=created, overrides=overrides)
    write(tmp_path / "g" / "other", state="done", overrides={"optimizer.lr": 9.0})
    assert [e.trial.overrides["optimizer.lr"] for e in reconcile(sweep, tmp_path)] == [0.3, 0.2]


def test_many_finished_trials_are_read_soon(tmp_path):
    """2,000 here in a generous second; benchmarks/sweep.py measures 10,000."""
    text = "name: g\nmethod: grid\nparameters: {optimizer.lr: {min: 1, max: 2000}}\n"
    for entry in reconcile(loads(text), tmp_path):
        write(entry.folder, state="done", metric={"name": "val/accuracy", "value": 0.5})
    begun = time.process_time()
    entries = list(reconcile(loads(text), tmp_path))
    assert {entry.state for entry in entries} == {"done"}
    assert undeclared_folders(entries, tmp_path / "g") == []
    assert time.process_time() - begun < 3


def test_a_folder_that_this_process_claimed_is_no_others(tmp_path):
    entry = next(reconcile(loads(GRID), tmp_path))
    entry.folder.mkdir(parents=True)
    TrialFolder(entry.folder).claim()
    source = TrialEntrySource([entry.again()], "trainer", [])
    assert source.take() is not None, "this very process is no other owner"


@pytest.mark.parametrize(
    ("more", "count", "size"),
    [
        ("", None, "1,000,000,001"),
        ("run_cap: 3000000\n", None, "3,000,000"),
        ("run_cap: 3\n", None, None),
        ("", 3, None),
    ],
)
def test_a_list_without_an_end_is_refused_at_once(more, count, size, tmp_path):
    text = f"method: grid\nparameters: {{a: {{min: 0, max: 1000000000}}}}\n{more}"
    listed = reconcile(loads(text), tmp_path, count)
    if size is None:
        assert len(list(listed)) == 3
        return
    with pytest.raises(UsageError, match=f"declares {size} trials.*give --count, or run_cap"):
        next(listed)
