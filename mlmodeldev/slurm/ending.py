"""What becomes of a job when its trials have ended: the last line of each batch script.

    exec python -m mlmodeldev.slurm.ending STATUS

Only standard modules are imported. A trial that saved and ended with 75 comes back in the same
job, unless Slurm requeues it anyway or the user has cancelled it. One that was killed from outside
comes back some times. All else is the job's exit status, so that Slurm says FAILED.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

INTERRUPTED = 75
SIGNALS_TO_SAVE = (128 + 10, 128 + 12, 128 + 15)
"""USR1, USR2, TERM: a trial that had not begun to listen yet dies of them."""
KILLED = (128 + 9, 128 + 7, 128 + 11)
"""KILL, BUS, SEGV."""
COMES_BACK = frozenset({"RUNNING", "TIMEOUT", "COMPLETING", "NODE_FAIL", "DEADLINE"})
"""States in which the job returns only if we say so. CANCELLED is the user's wish; PENDING,
REQUEUED and PREEMPTED jobs are on their way back already."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def main(status: int) -> int:
    """Requeue the job if it is to come back; return the job's exit status."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job or status == 0 or not _wants_back(status):
        return status
    state = job_state(job)
    print(f"trials ended with {status}; the job is {state or 'unknown'}", flush=True)
    if state in COMES_BACK and requeue(job):
        time.sleep(120)  # Slurm ends this shell; what ends by itself would not be requeued
    return status


def _wants_back(status: int) -> bool:
    if status == INTERRUPTED or status in SIGNALS_TO_SAVE:
        return True
    return status in KILLED and _restarts_left()


def _restarts_left() -> bool:
    """Count a kill; whether the job may come back after it."""
    submission = Path(os.environ.get("MLMODELDEV_SUBMISSION", ""))
    task = os.environ.get("SLURM_ARRAY_TASK_ID", "0")
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID", ""))
    try:
        allowed = int(json.loads(submission.read_text())["restarts_after_kill"])
        counter = submission.parent / f"killed-{job}_{task}"
        kills = 1 + (len(counter.read_text()) if counter.exists() else 0)
        counter.write_text("k" * kills)
    except (OSError, ValueError, KeyError):
        return False
    print(f"a trial was killed from outside (time {kills}; comes back {allowed} times)", flush=True)
    return kills <= allowed


def job_state(job: str) -> str:
    """Return the job's base state, asked until the controller answers, for two minutes at most.

    squeue shows COMPLETING over the reason why a job ends; ``scontrol`` shows the reason.
    """
    for _ in range(24):
        done = _run("scontrol", "-o", "show", "job", job)
        fields = dict(part.split("=", 1) for part in done.stdout.split() if "=" in part)
        if "JobState" in fields:
            return fields["JobState"]
        time.sleep(5)
    return ""


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


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
