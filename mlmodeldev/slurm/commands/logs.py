"""``SlurmTrain.py logs TRIAL``: what a trial printed, and what its job did."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.commands.table import read_jobs
from mlmodeldev.slurm.plan import state
from mlmodeldev.slurm.submission import submissions
from mlmodeldev.slurm.sweep_state import add_sweep_options, read_sweep_state
from mlmodeldev.slurm.trial_entries import find_trial

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.slurm.trial_entries import TrialEntry

EXIT_CTRL_C = 130
_LOG = "_log.out"
QUEUE_SECONDS = 5.0
"""Between two questions to squeue while a log is followed."""
_NEXT = {"missing": "submit runs it", "running": "logs -f waits for it", "failed": "see retry"}
"""What to do about a trial that has printed nothing, by its state."""
LOGS_HELP = "print a trial's output (-f: go on as it grows)"


def add_logs_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("trial", metavar="TRIAL", help="identity, or its first letters")
    parser.add_argument("-f", "--follow", action="store_true", help="until the trial has ended")
    parser.add_argument("-n", "--lines", type=int, help="only the last so many lines")
    add_sweep_options(parser)


def run_logs(args: argparse.Namespace) -> int:
    """Print the log."""
    sweep_state = read_sweep_state(args, lint=False)
    entry = find_trial(sweep_state.entries, args.trial)
    files = [entry.folder / "log.txt", *job_logs(sweep_state, entry.trial.id)]
    there = [file for file in files if file.is_file()]
    if not there and not args.follow:
        after = _NEXT.get(entry.state, "status tells more of it")
        raise UsageError(f"{entry.trial.id}: has printed nothing yet ({entry.state}); {after}")
    printed = 0
    for file in reversed(there):
        if len(there) > 1:
            print(f"==> {file} <==")
        content = file.read_bytes()
        printed = len(content) if file == files[0] else 0
        lines = content.decode(errors="replace").splitlines()
        print("\n".join(lines[-args.lines :] if args.lines else lines), flush=True)
    if args.follow:
        try:
            follow_log(sweep_state, entry, printed)
        except KeyboardInterrupt:
            return EXIT_CTRL_C
    return 0


def job_logs(sweep_state: SweepState, trial: str) -> Iterator[Path]:
    """Yield the logs of the jobs that ran a trial, newest first; a rank writes one each."""
    return JobLogs(sweep_state).of(trial)


class JobLogs:
    """The logs of a sweep's jobs, for many trials: its submissions are gone through once."""

    def __init__(self, sweep_state: SweepState) -> None:
        self._logs: dict[Path, dict[str, list[Path]]] = {}
        self._jobs: dict[str, list[tuple[Path, str]]] = {}
        for submission in reversed(submissions(sweep_state.folder)):
            for task, trials in submission.tasks():
                for trial in trials:
                    self._jobs.setdefault(trial, []).append((submission.folder, task))

    def of(self, trial: str) -> Iterator[Path]:
        """Yield the logs of the jobs that ran a trial, newest first."""
        for folder, task in self._jobs.get(trial, ()):
            if folder not in self._logs:
                self._logs[folder] = _logs_by_task(folder)
            yield from self._logs[folder].get(task, ())


def _logs_by_task(folder: Path) -> dict[str, list[Path]]:
    """Return a submission's logs, ``1201_0_0_log.out``, by their tasks."""
    logs: dict[str, list[Path]] = {}
    try:
        with os.scandir(folder) as items:
            names = sorted(item.name for item in items if item.name.endswith(_LOG))
    except OSError:
        return {}
    for name in names:
        task = name.removesuffix(_LOG).rpartition("_")[0]
        logs.setdefault(task, []).append(folder / name)
    return logs


def follow_log(sweep_state: SweepState, entry: TrialEntry, printed: int) -> None:
    """Print what is added to a trial's log until it has ended, or nothing will go on with it.

    Args:
        printed: bytes of the log that were printed already.
    """
    gone, queue_read_at = 0, time.monotonic()
    while True:
        state = entry.again().state
        printed = _print_from(entry.folder / "log.txt", printed)  # after: the last words are there
        if state in ("done", "failed", "pruned"):
            return
        if time.monotonic() - queue_read_at > QUEUE_SECONDS:
            gone = gone + 1 if _is_left_alone(sweep_state, entry) else 0
            queue_read_at = time.monotonic()
            if gone == 2:  # at the first it may have been between two states
                print(f"{entry.trial.id}: its job has left the queue", file=sys.stderr)
                return
        time.sleep(0.5)


def _is_left_alone(sweep_state: SweepState, entry: TrialEntry) -> bool:
    """Return whether a trial's job is known to have left the queue."""
    job = read_jobs(sweep_state).get(entry.trial.id)
    return job is not None and job.queued is None and state(entry.again(), job) != "running"


def _print_from(file: Path, start: int) -> int:
    """Print a file from a place on; return its end."""
    if not file.is_file():
        return start
    with file.open("rb") as opened:
        opened.seek(start)
        added = opened.read()
    sys.stdout.write(added.decode(errors="replace"))
    sys.stdout.flush()
    return start + len(added)
