"""``SlurmTrain.py logs TRIAL``: what a trial printed, and what its job did."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.slurm import sweep_state

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState, TrialEntry

EXIT_CTRL_C = 130
QUEUE_SECONDS = 5.0
"""Between two questions to squeue while a log is followed."""
LOGS_HELP = "print a trial's output (-f: go on as it grows)"


def add_logs_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("trial", metavar="TRIAL", help="identity, or its first letters")
    parser.add_argument("-f", "--follow", action="store_true", help="until the trial has ended")
    parser.add_argument("-n", "--lines", type=int, help="only the last so many lines")
    sweep_state.add_options(parser)


def run_logs(asked: argparse.Namespace) -> int:
    """Print the log."""
    known = sweep_state.read(asked, lint=False)
    entry = find(known.entries, asked.trial)
    files = [entry.folder / "log.txt", *job_logs(known, entry.trial.id)]
    there = [file for file in files if file.is_file()]
    if not there and not asked.follow:
        raise UsageError(f"{entry.trial.id}: has printed nothing yet ({entry.state})")
    read = 0
    for file in reversed(there):
        if len(there) > 1:
            print(f"==> {file} <==")
        content = file.read_bytes()
        read = len(content) if file == files[0] else 0
        lines = content.decode(errors="replace").splitlines()
        print("\n".join(lines[-asked.lines :] if asked.lines else lines), flush=True)
    if asked.follow:
        try:
            follow(known, entry, read)
        except KeyboardInterrupt:
            return EXIT_CTRL_C
    return 0


def find(entries: Sequence[TrialEntry], text: str) -> TrialEntry:
    """Return the trial that an identity, or the beginning of one, names.

    Raises:
        UsageError: none, or several.
    """
    found = [entry for entry in entries if entry.trial.id.startswith(text)]
    if len(found) == 1:
        return found[0]
    names = [entry.trial.id for entry in entries]
    if found:
        raise UsageError(f"{text}: may be {' or '.join(e.trial.id for e in found)}")
    raise UsageError(f"{text}: the sweep has no such trial{nearest(text, names)}")


def job_logs(known: SweepState, trial: str) -> Iterator[Path]:
    """Yield the logs of the jobs that ran a trial, newest first; a rank writes one each."""
    from mlmodeldev.slurm.submission import submissions

    for submission in reversed(submissions(known.folder)):
        for task, trials in submission.tasks():
            if trial in trials:
                yield from sorted(submission.folder.glob(f"{task}_*_log.out"))


def follow(known: SweepState, entry: TrialEntry, read: int) -> None:
    """Print what is added to a trial's log until it has ended, or nothing will go on with it.

    Args:
        read: bytes of the log that were printed already.
    """
    gone, asked_at = 0, time.monotonic()
    while True:
        state = entry.again().state
        read = _print_from(entry.folder / "log.txt", read)  # after: the last words are there
        if state in ("done", "failed", "pruned"):
            return
        if time.monotonic() - asked_at > QUEUE_SECONDS:
            gone = gone + 1 if _left_alone(known, entry) else 0
            asked_at = time.monotonic()
            if gone == 2:  # at the first it may have been between two states
                print(f"{entry.trial.id}: its job has left the queue", file=sys.stderr)
                return
        time.sleep(0.5)


def _left_alone(known: SweepState, entry: TrialEntry) -> bool:
    """Whether a trial's job is known to have left the queue."""
    from mlmodeldev.slurm.commands.trials import in_queue
    from mlmodeldev.slurm.plan import state

    task = in_queue(known).get(entry.trial.id)
    return task is not None and task.queued is None and state(entry.again(), task) != "running"


def _print_from(file: Path, at: int) -> int:
    """Print a file from a place on; return its end."""
    if not file.is_file():
        return at
    with file.open("rb") as opened:
        opened.seek(at)
        added = opened.read()
    sys.stdout.write(added.decode(errors="replace"))
    sys.stdout.flush()
    return at + len(added)
