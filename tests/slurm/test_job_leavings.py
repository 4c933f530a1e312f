"""What ``mlmodeldev trial gc`` removes beside the trials, and its command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.slurm.trial_command import main
from tests.conftest import ROOT
from tests.slurm.stubs import Stubs
from tests.slurm.written_trials import (
    LONG_AGO,
    STATES,
    gc,
    trial,
    write,
)


def submission(sweep: Path, name: str, code: Path, number: str, tasks: list[list[str]]) -> Path:
    """Write a submission's notes, and a log of each of its tasks."""
    folder = sweep / ".jobs" / name
    notes = {"version": 1, "snapshot": str(code), "created": LONG_AGO, "intent": None}
    notes["arrays"] = [{"job": number, "tasks": tasks}]
    write(folder / "jobs.json", json.dumps(notes))
    for index in range(len(tasks)):
        write(folder / f"{number}_{index}_0_log.out", 10)
    return folder


def snapshot(runs: Path, name: str) -> Path:
    folder = write(runs / ".snapshots" / name / "trainer.py", 30).parent
    os.utime(folder, (LONG_AGO, LONG_AGO))
    return folder


def test_job_logs_and_copies_of_code_that_nothing_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    sweep = runs / "a"
    slurm = {"job_id": "20", "array_job_id": "20", "array_task_id": "0"}
    trial(sweep / "twice", slurm=slurm)
    trial(sweep / "bad", "failed")
    trial(sweep / "live")
    codes = {name: snapshot(runs, name) for name in ("one", "queued", "none", "gone")}
    first = submission(sweep, "1", codes["one"], "10", [["twice"], ["bad"]])
    second = submission(sweep, "2", codes["one"], "20", [["twice"], ["missing"]])
    third = submission(sweep, "3", codes["queued"], "30", [["live"], ["live"]])
    submission(sweep, "4", codes["gone"], "40", [["removed"], ["removed"]])
    killed = write(sweep / ".jobs" / "5" / "tasks-0.pkl", 5).parent
    os.utime(killed, (LONG_AGO, LONG_AGO))
    stubs = Stubs(tmp_path, monkeypatch)
    stubs.add("squeue", "echo '30_0|RUNNING|None|1:00|node'")
    shown = gc(runs, "--dry-run", capsys=capsys)["others"]
    assert {Path(each["path"]) for each in shown} == {
        first / "10_0_0_log.out",
        killed,
        codes["none"],
        codes["gone"],
    }
    assert gc(runs, "--yes", capsys=capsys)["removed"] == 10 + 5 + 30 + 30
    logs = {path.name for path in sweep.rglob("*_log.out")}
    assert logs == {"10_1_0_log.out", "20_0_0_log.out", "20_1_0_log.out", "30_0_0_log.out",
                    "30_1_0_log.out", "40_0_0_log.out", "40_1_0_log.out"}  # fmt: skip
    assert {path.name for path in (runs / ".snapshots").iterdir()} == {"one", "queued"}
    assert second.is_dir()
    assert third.is_dir()


def test_nothing_of_jobs_goes_while_slurm_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    trial(runs / "a" / "x")
    submission(runs / "a", "1", snapshot(runs, "one"), "10", [["x"], ["x"]])
    snapshot(runs, "none")
    Stubs(tmp_path, monkeypatch).add("squeue", "echo down >&2; exit 1")
    shown = gc(runs, "--dry-run", capsys=capsys)
    assert shown["others"] == []
    assert all("Slurm does not answer" in note for note in shown["notes"])
    assert len(shown["notes"]) == 2


# --- the command line


def test_the_command_asks_and_refuses_in_one_line(tmp_path: Path) -> None:
    trial(tmp_path / "runs" / "a" / "x")
    words = [sys.executable, "-m", "mlmodeldev", "trial", "gc", "--runs-dir", "runs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*words, *more], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run(f"--{STATES}")
    assert (done.returncode, done.stderr) == (
        2,
        "mlmodeldev trial: Remove 2 kB? add --yes (--dry-run only shows)\n",
    )
    assert "a/x" in done.stdout
    assert "checkpoints: 2 kB in 2" in done.stdout
    assert len(list((tmp_path / "runs").rglob("step-*.ckpt"))) == 2


class Terminal(io.StringIO):
    """Standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "status", "left"), [("n", 2, 2), ("y", 0, 0)])
def test_at_a_terminal_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, left: int
) -> None:
    folder = trial(tmp_path / "runs" / "a" / "x")
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    assert main(["gc", "--runs-dir", str(tmp_path / "runs"), f"--{STATES}"]) == status
    assert len(list(folder.glob("checkpoints/step-*"))) == left


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["aa"], "aa: no such sweep or trial in {runs}; did you mean 'a'?"),
        (["--keep", "1"], "--keep: says how many checkpoints stay of --optimizer-states; add it"),
        (["--older-than", "7"], "'7' is no age: 12h, 7d or 4w, say"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], line: str
) -> None:
    runs = tmp_path / "runs"
    trial(runs / "a" / "x")
    assert main(["gc", "--runs-dir", str(runs), *options]) == 2
    printed = capsys.readouterr()
    assert line.format(runs=runs) in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
