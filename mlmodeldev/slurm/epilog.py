"""What becomes of a job when its trials have ended: the last line of each batch script.

    exec python -m mlmodeldev.slurm.epilog STATUS

A trial that saved and ended with 75 comes back in the same job, unless Slurm requeues it anyway or
the user has cancelled it. One that was killed from outside comes back some times; one that gets
nowhere, start after start, fails. All else is the job's exit status, so that Slurm says FAILED.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import write_json
from mlmodeldev.errors import EXIT_INTERRUPTED
from mlmodeldev.slurm.query import (
    own_task_name,
    read_fields,
    requeue_job,
    seconds_of,
    show_job,
)
from mlmodeldev.slurm.script import EXIT_REQUEUE, JOB_VARIABLE, SUBMISSION_VARIABLE
from mlmodeldev.slurm.submission import Submission
from mlmodeldev.slurm.trial_entries import ENDED
from mlmodeldev.trial.checkpoint import recovery_checkpoints
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.hang import goes_on, hang_of
from mlmodeldev.trial.record import read_record

KILL_SIGNALS = (signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV)
"""What ends a trial from outside, such as lack of memory."""
_KILLED = tuple(128 + number for number in KILL_SIGNALS)
_SAVE_SIGNALS = tuple(128 + n for n in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM))
"""A trial that had not begun to listen yet dies of them."""

MAX_STARTS = 3
"""Starts in a row without progress after which a job is given up."""
CRASH_LOOP_REASON = (
    f"{MAX_STARTS} starts in a row ended before a step was done: the time limit is too short for"
    " the start, or its warning comes too early"
)


def main(status: int) -> int:
    """Requeue the job if it is to come back; return the job's exit status."""
    job = own_task_name()
    if not job or status == 0:
        return status
    if _hangs_for_good():
        return 1
    saved = _has_saved()
    if not (saved or _wants_back(status)):
        _mark_failed(status)
        return status
    return _bring_back(job, status, is_killed=status in _KILLED and not saved)


def _bring_back(job: str, status: int, is_killed: bool) -> int:
    """Requeue the job, if that is ours to do and it gets anywhere; return its exit status."""
    fields = _job_fields(job)
    print(f"trials ended with {status}; the job is {fields.get('JobState', 'unknown')}", flush=True)
    if not is_ours_to_requeue(fields):
        return status
    if not is_killed and _gave_up():
        return 1
    if _is_in_container():
        return EXIT_REQUEUE
    requeue_job(job)
    return status


def _is_in_container() -> bool:
    """Return whether the batch shell asks Slurm for this process, which has no scontrol."""
    return JOB_VARIABLE in os.environ


def _job_fields(job: str) -> dict[str, str]:
    return read_fields(os.environ[JOB_VARIABLE]) if _is_in_container() else show_job(job)


def is_ours_to_requeue(fields: Mapping[str, str]) -> bool:
    """Return whether the job comes back only if we say so.

    A running job does: its trial was warned of the time limit, or of a preemption that waits for
    it to end. A job that is being ended (COMPLETING hides why) does at its time limit only;
    otherwise the user has cancelled it, which means stop, or Slurm itself requeues it.

    Args:
        fields: what scontrol shows of the job.
    """
    state = fields.get("JobState", "")
    if state not in ("COMPLETING", "TIMEOUT"):
        return state == "RUNNING"
    run_time, limit = (seconds_of(fields.get(name, "")) or 0 for name in ("RunTime", "TimeLimit"))
    return run_time >= limit > 0


def _wants_back(status: int) -> bool:
    if status == EXIT_INTERRUPTED or status in _SAVE_SIGNALS:
        return True
    return status in _KILLED and may_restart(own_task_name())


def may_restart(name: str) -> bool:
    """Count a kill from outside; return whether what was killed may come back after it.

    Args:
        name: of the task, or of the trial where several share one.
    """
    submission = Path(os.environ.get(SUBMISSION_VARIABLE, ""))
    try:
        allowed = int(json.loads(submission.read_text())["restarts_after_kill"])
        counter = submission.parent / f"killed-{name}"
        kills = 1 + (len(counter.read_text()) if counter.exists() else 0)
        counter.write_text("k" * kills)
    except (OSError, ValueError, KeyError):
        return False
    print(f"a trial was killed from outside (time {kills}; comes back {allowed} times)", flush=True)
    return kills <= allowed


# --- this task's trials


def _has_saved() -> bool:
    """Return whether a trial of this start of the job has saved to go on later.

    srun may say otherwise: where another task's end is taken for this one's, the trial is told to
    end, and srun's status is the other's. One that hung was killed, and has its checkpoint.
    """
    records = [record for _, record in _own_trials()]
    return any(each.get("state") == "interrupted" or goes_on(each) for each in records)


def _hangs_for_good() -> bool:
    """Return whether a trial of this start was given up, as it hung again and again."""
    records = [record for _, record in _own_trials()]
    return len(records) == 1 and hang_of(records[0]) is not None and not goes_on(records[0])


def _mark_failed(status: int) -> None:
    """Write down how this task's trials ended, where they had no time to do so themselves."""
    for trial, record in _own_trials():
        if record.get("state") == "running":
            with contextlib.suppress(Exception):  # the job's own status must come out in any case
                _fail(trial, f"its job ended with exit status {status}{_memory_hint(status)}")


def _memory_hint(status: int) -> str:
    """Return what memory the job had, where lack of it may be why it was killed."""
    if status != 128 + signal.SIGKILL:
        return ""
    node, cpu = (os.environ.get(f"SLURM_MEM_PER_{name}", "") for name in ("NODE", "CPU"))
    had = next(
        (f"{text} MiB on each {w}" for text, w in ((node, "node"), (cpu, "CPU")) if text), ""
    )
    return f" (killed; for lack of memory? it had {had}: cluster.mem_gb)" if had else ""


def _own_trials() -> list[tuple[Path, dict[str, Any]]]:
    """Return this task's trials with their records, as far as this start of the job ran them."""
    trials: list[tuple[Path, dict[str, Any]]] = []
    with contextlib.suppress(Exception):
        this_start = (os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_RESTART_COUNT", "0"))
        for trial in _task()[1]:
            record = TrialFolder(trial).read()
            slurm = record.get("slurm") or {}
            if (slurm.get("job_id"), slurm.get("restart_count", "0")) == this_start:
                trials.append((trial, record))
    return trials


def _task() -> tuple[Submission, list[Path]]:
    """Return this task's submission and the folders of its trials."""
    submission = Submission.read(Path(os.environ[SUBMISSION_VARIABLE]))
    names = dict(submission.tasks())[own_task_name()]
    return submission, [submission.sweep_folder / name for name in names]


def _fail(trial: Path, reason: str) -> None:
    trial.mkdir(parents=True, exist_ok=True)
    TrialFolder(trial).update(state="failed", reason=reason, owner=None, lease=None)


# --- a crash loop: start after start, and not one step


def _gave_up() -> bool:
    """Fail this task's trials where it has come back in vain too often; return whether it has."""
    with contextlib.suppress(Exception):  # without a submission there is nothing to look at
        submission, trials = _task()
        watched = trials or [file.parent for file in submission.sweep_folder.glob("*/trial.json")]
        note = submission.folder / f"progress-{own_task_name()}.json"
        if not is_crash_loop(note, watched):
            return False
        print(CRASH_LOOP_REASON, flush=True)
        for trial in _begun(trials) or trials[:1]:
            _fail(trial, CRASH_LOOP_REASON)
        return True
    return False


def _begun(trials: Sequence[Path]) -> list[Path]:
    return [t for t in trials if read_record(t).get("state") in ("running", "interrupted")]


def is_crash_loop(note: Path, trials: Iterable[Path]) -> bool:
    """Write down how far the trials are; return whether too many starts brought none further.

    Args:
        note: a file of this job's own, kept from start to start.
        trials: their folders.
    """
    now = {folder.name: _progress(folder) for folder in trials}
    before = _read_note(note)
    moved = now != before.get("reached") and any(now.values())
    starts = 0 if moved else int(before.get("starts", 0)) + 1
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, {"reached": now, "starts": starts})
    return starts >= MAX_STARTS


def _progress(folder: Path) -> str:
    """Return how the trial ended, or its newest checkpoint; empty before the first."""
    state = str(read_record(folder).get("state", ""))
    if state in ENDED or state == "failed":
        return state
    return next((file.name for file in recovery_checkpoints(folder / "checkpoints")), "")


def _read_note(note: Path) -> dict[str, Any]:
    try:
        content = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
