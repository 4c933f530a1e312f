"""Jobs that ended before their trial began: named with state and log, given up after some."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlmodeldev.slurm.commands.table import print_notes
from mlmodeldev.slurm.failed_starts import with_ends
from mlmodeldev.slurm.job_ends import JobEnd, read_accounting, read_job_ends
from mlmodeldev.slurm.plan import is_due, state
from mlmodeldev.slurm.query import Queued
from mlmodeldev.slurm.submission import Submission, TrialJob, jobs_of
from tests.slurm.stubs import Stubs

LOGGED = ["BOOT_FAIL", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"]


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubs:
    made = Stubs(tmp_path, monkeypatch)
    made.add("scontrol", "exit 1")
    made.add("sacct", "exit 1")
    return made


def submitted(folder: Path, *jobs: str) -> None:
    """Note jobs of the trial ``a``, one after the other."""
    for number, job in enumerate(jobs):
        submission = Submission.new(folder, folder)
        submission.created = float(job) + number
        submission.add(job, [["a"]])


def entry(record: dict[str, Any] | None = None) -> Any:
    """Return the trial."""
    record = record or {}
    own = str(record.get("state", "missing"))
    return SimpleNamespace(
        trial=SimpleNamespace(id="a"), state=own, record=record, runs_in_wandb=False
    )


def look(folder: Path, record: dict[str, Any] | None = None) -> tuple[str, TrialJob]:
    """Return the state and the job of the trial, as ``status`` sees them."""
    jobs = {trial: TrialJob(job, None) for trial, job in jobs_of(folder).items()}
    ended = with_ends([entry(record)], jobs, folder)
    return state(entry(record), ended["a"]), ended["a"]


@pytest.mark.parametrize("word", LOGGED)
def test_after_three_jobs_that_died_before_it_a_trial_has_failed(
    stubs: Stubs, tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stubs.add("sacct", *(f"echo '{job}|{word}|1:0|2G|'" for job in (11, 12, 13)))
    folder = tmp_path / "runs" / "small"
    for count, expected in ((1, "missing"), (2, "missing"), (3, "failed")):
        submitted(folder, str(10 + count))
        seen, job = look(folder)
        assert (seen, job.failed_starts) == (expected, count)
        assert is_due(entry(), seen, None) is (count < 3)
    assert is_due(entry(), "failed", {"a"}), "retry runs it again"
    assert f"job 13 {word}" in job.note
    assert "before its trial began; it left no log" in job.note
    print_notes({"a": job})
    assert "given up after 3, see retry" in capsys.readouterr().err


def test_its_log_is_named_and_tells_where_slurm_forgets(stubs: Stubs, tmp_path: Path) -> None:
    """No accounting, and the controller has forgotten: the script printed, and no trial began."""
    folder = tmp_path / "runs" / "small"
    submitted(folder, "11")
    assert look(folder)[1].failed_starts == 0, "nothing tells that it ever began"
    (submission,) = folder.glob(".jobs/*/")
    log = submission / "11_0_log.out"
    log.write_text("module: command not found\n")
    assert look(folder)[1].note == f"job 11 ended before its trial began; log: {log}"


def test_the_controller_is_queried_where_there_is_no_accounting(stubs: Stubs) -> None:
    stubs.add("scontrol", "echo 'JobId=12 JobState=BOOT_FAIL ExitCode=0:1'")
    assert read_job_ends(["12"]) == {"12": JobEnd("BOOT_FAIL", "0:1")}
    stubs.add("scontrol", "echo 'JobId=12 JobState=COMPLETING ExitCode=0:0'")
    assert read_job_ends(["12"]) == {}, "it may still come back"


@pytest.mark.parametrize("word", ["CANCELLED by 1000", "COMPLETED"])
def test_a_cancelled_job_is_no_failed_start(stubs: Stubs, tmp_path: Path, word: str) -> None:
    stubs.add("sacct", f"echo '11|{word}|0:0||'")
    submitted(tmp_path / "small", "11", "11", "11")
    assert look(tmp_path / "small")[1].failed_starts == 0


def test_only_starts_since_the_trial_last_ran_count(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("sacct", *(f"echo '{job}|FAILED|1:0||'" for job in (11, 12, 13)))
    submitted(tmp_path / "small", "11", "12", "13")
    record = {"state": "interrupted", "slurm": {"job_id": "12"}}
    seen, job = look(tmp_path / "small", record)
    assert (seen, job.failed_starts) == ("interrupted", 1)


def test_out_of_memory_tells_what_was_requested_used_and_what_to_ask_for(
    stubs: Stubs, tmp_path: Path
) -> None:
    rows = ["11_0|OUT_OF_MEMORY|0:125|2G|", "11_0.batch|COMPLETED|0:0||8000K"]
    rows += ["11_0.0|OUT_OF_MEMORY|0:125||1992294K", "11_0.extern|COMPLETED|0:0||"]
    stubs.add("sacct", *(f"echo '{row}'" for row in rows))
    submission = Submission.new(tmp_path / "small", tmp_path)
    submission.add("11", [["a"], ["b"]])
    slurm = {"job_id": "13", "array_job_id": "11", "array_task_id": "0"}
    seen, job = look(tmp_path / "small", {"state": "failed", "slurm": slurm})
    assert seen == "failed"
    assert job.note == (
        "job 11_0 OUT_OF_MEMORY: asked for 2 GiB, used 1.9 GiB when last looked at;"
        " try cluster.mem_gb=3"
    )


def test_older_slurms_write_memory_with_its_scope() -> None:
    ends = read_accounting("12|OUT_OF_MEMORY|0:125|4096Mn|\n13|FAILED", {"12", "13"})
    assert ends == {"12": JobEnd("OUT_OF_MEMORY", "0:125", 4.0, 0.0)}


def test_a_node_that_is_stuck_hides_no_dead_trial() -> None:
    """Its job is COMPLETING for days: a trial without a living owner is lost, and runs again."""
    leaving = TrialJob("11", Queued("COMPLETING", "None", "0:00", "n1"))
    dead = {"state": "running", "owner": {"host": "n1", "pid": 1}, "lease": 1.0}
    assert state(entry({**dead, "slurm": {"job_id": "11"}}), leaving) == "lost"
    running = TrialJob("11", Queued("RUNNING", "None", "9:00", "n1"))
    assert state(entry(dead), running) == "running"
    assert state(entry({"state": "interrupted"}), leaving) == "queued", "it may be requeued"
