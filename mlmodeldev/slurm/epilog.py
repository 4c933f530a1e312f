"""What becomes of a job when its trials have ended: the last line of each batch script.

    exec python -m mlmodeldev.slurm.epilog STATUS

A trial that saved and ended with 75 comes back in the same
job, unless Slurm requeues it anyway or the user has cancelled it. One that was killed from outside
comes back some times; one that gets nowhere, start after start, fails. All else is the job's exit
status, so that Slurm says FAILED.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.atomic import write_json
from mlmodeldev.slurm.sweep_state import ENDED
from mlmodeldev.trial.folder import read_record

if TYPE_CHECKING:
    from mlmodeldev.slurm.submission import Submission
    from mlmodeldev.trial.folder import TrialFolder


INTERRUPTED = 75
SIGNALS_TO_SAVE = (128 + 10, 128 + 12, 128 + 15)
"""USR1, USR2, TERM: a trial that had not begun to listen yet dies of them."""
KILLED = (128 + 9, 128 + 7, 128 + 11)
"""KILL, BUS, SEGV."""


def main(status: int) -> int:
    """Requeue the job if it is to come back; return the job's exit status."""
    job = own_name()
    if not job or status == 0:
        return status
    if not (_wants_back(status) or saved()):
        mark_failed(status)
        return status
    told = show_job(job)
    print(f"trials ended with {status}; the job is {told.get('JobState', 'unknown')}", flush=True)
    if not is_ours_to_requeue(told):
        return status
    if status not in KILLED and given_up():
        return 1
    if requeue(job):
        time.sleep(120)  # Slurm ends this shell; what ends by itself would not be requeued
    return status


def own_name() -> str:
    """Return this task's name, ``1201_0``."""
    names = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID")
    variables = {name.lower(): os.environ.get(f"SLURM_{name}", "") for name in names}
    return task_name(variables)


def task_name(slurm: Mapping[str, str]) -> str:
    """Return the name of a task, from ``job_id``, ``array_job_id`` and ``array_task_id``.

    Never the job's number alone within an array: the last task's number is the array's own, and
    requeueing that requeues every task.
    """
    if slurm.get("array_job_id"):
        return f"{slurm['array_job_id']}_{slurm['array_task_id']}"
    return slurm.get("job_id", "")


def _wants_back(status: int) -> bool:
    if status == INTERRUPTED or status in SIGNALS_TO_SAVE:
        return True
    return status in KILLED and _restarts_left()


def saved() -> bool:
    """Whether a trial of this start of the job has saved to go on later, whatever srun says.

    Where another task's end is taken for this one's, the trial is told to end, and srun's status
    is the other's.
    """
    mine = [record.get("state") for _, record in own_trials()]
    return "interrupted" in mine


def given_up() -> bool:
    """Whether this task has come back in vain too often; its trials are failed then."""

    with contextlib.suppress(Exception):  # without a submission there is nothing to look at
        submission, trials = _task()
        every = trials or [folder.parent for folder in _sweep(submission).glob("*/trial.json")]
        if not standing_still(submission.folder / f"progress-{own_name()}.json", every):
            return False
        print(REASON, flush=True)
        for trial in _begun(trials) or trials[:1]:
            _fail(trial, REASON)
        return True
    return False


def _begun(trials: Iterable[Path]) -> list[Path]:
    from mlmodeldev.trial.folder import read_record

    return [t for t in trials if read_record(t).get("state") in ("running", "interrupted")]


def _fail(trial: Path, reason: str) -> None:
    from mlmodeldev.trial.folder import TrialFolder

    trial.mkdir(parents=True, exist_ok=True)
    TrialFolder(trial).update(state="failed", reason=reason, owner=None, lease=None)


def _task() -> tuple[Submission, list[Path]]:
    """Return this task's submission and the folders of its trials."""
    from mlmodeldev.slurm.submission import Submission

    submission = Submission.read(Path(os.environ["MLMODELDEV_SUBMISSION"]))
    names = dict(submission.tasks())[own_name()]
    return submission, [_sweep(submission) / name for name in names]


def _sweep(submission: Submission) -> Path:
    return submission.folder.parents[1]


def mark_failed(status: int) -> None:
    """Write down how this task's trials ended, where they had no time to do so themselves."""
    for folder, record in own_trials():
        if record.get("state") == "running":
            reason = f"its job ended with exit status {status}"
            with contextlib.suppress(Exception):  # the job's own status must come out in any case
                folder.update(state="failed", reason=reason, owner=None, lease=None)


def own_trials() -> list[tuple[TrialFolder, dict[str, Any]]]:
    """Return this task's trials with their records, as far as this start of the job ran them."""
    from mlmodeldev.trial.folder import TrialFolder

    found = []
    with contextlib.suppress(Exception):
        for trial in _task()[1]:
            folder = TrialFolder(trial)
            record = folder.read()
            slurm = record.get("slurm") or {}
            start = (slurm.get("job_id"), slurm.get("restart_count", "0"))
            if start == (os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_RESTART_COUNT", "0")):
                found.append((folder, record))
    return found


def _restarts_left() -> bool:
    """Count a kill; whether the job may come back after it."""
    return may_restart(own_name())


def may_restart(name: str) -> bool:
    """Count a kill from outside; whether it may come back after it.

    Args:
        name: of the task, or of the trial where several share one.
    """
    submission = Path(os.environ.get("MLMODELDEV_SUBMISSION", ""))
    try:
        allowed = int(json.loads(submission.read_text())["restarts_after_kill"])
        counter = submission.parent / f"killed-{name}"
        kills = 1 + (len(counter.read_text()) if counter.exists() else 0)
        counter.write_text("k" * kills)
    except (OSError, ValueError, KeyError):
        return False
    print(f"a trial was killed from outside (time {kills}; comes back {allowed} times)", flush=True)
    return kills <= allowed


def is_ours_to_requeue(told: Mapping[str, str]) -> bool:
    """Whether the job comes back only if we say so.

    A running job does: its trial was warned of the time limit, or of a preemption that waits for
    it to end. A job that is being ended (COMPLETING hides why) does at its time limit only;
    otherwise the user has cancelled it, which means stop, or Slurm itself requeues it.
    """
    state = told.get("JobState", "")
    return state == "RUNNING" or (
        state in ("COMPLETING", "TIMEOUT")
        and _seconds(told.get("RunTime", "")) >= _seconds(told.get("TimeLimit", "")) > 0
    )


def _seconds(text: str) -> int:
    """Read Slurm's ``1-02:03:04``; 0 for words such as UNLIMITED."""
    days, _, clock = text.rpartition("-")
    if not clock.replace(":", "").isdigit():
        return 0
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part)
    return total + 86400 * int(days or 0)


def show_job(job: str, tries: int = 24) -> dict[str, str]:
    """Return what scontrol tells of the job, asked until the controller answers (two minutes)."""
    for _ in range(tries):
        done = _run("scontrol", "-o", "show", "job", job)
        told = dict(part.split("=", 1) for part in done.stdout.split() if "=" in part)
        if "JobState" in told:
            return told
        if tries > 1:
            time.sleep(5)
    return {}


def requeue(job: str) -> bool:
    """Put the job back into the queue; whether Slurm took it."""
    for _ in range(24):
        done = _run("scontrol", "requeue", job)
        if done.returncode == 0:
            return True
        if "Unable to contact" not in done.stderr and "timed out" not in done.stderr:
            print(f"scontrol requeue {job}: {done.stderr.strip()}", file=sys.stderr)
            return False
        time.sleep(5)
    return False


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return subprocess.CompletedProcess(command, 1, "", "timed out")


STARTS = 3
"""Starts in a row without progress after which a job is given up."""
REASON = (
    f"{STARTS} starts in a row ended before a step was done: the time limit is too short for the"
    " start, or its warning comes too early"
)


def standing_still(note: Path, trials: Iterable[Path]) -> bool:
    """Write down how far the trials are; whether too many starts have brought none further.

    Args:
        note: a file of this job's own, kept from start to start.
        trials: their folders.
    """
    now = {folder.name: _reached(folder) for folder in trials}
    before = _read(note)
    moved = now != before.get("reached") and any(now.values())
    starts = 0 if moved else int(before.get("starts", 0)) + 1
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, {"reached": now, "starts": starts})
    return starts >= STARTS


def _reached(folder: Path) -> str:
    """Return the trial's end, or its newest checkpoint; empty before the first."""
    state = str(read_record(folder).get("state", ""))
    if state in ENDED or state == "failed":
        return state
    return max((file.name for file in (folder / "checkpoints").glob("step-*.ckpt")), default="")


def _read(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
