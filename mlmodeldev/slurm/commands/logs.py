"""``SlurmTrain.py logs TRIAL``: what a trial printed, and what its job did."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.slurm import declared

if TYPE_CHECKING:
    from mlmodeldev.slurm.declared import Declared
    from mlmodeldev.slurm.reconcile import Entry

HELP = "print a trial's output (-f: go on as it grows)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("trial", metavar="TRIAL", help="identity, or its first letters")
    parser.add_argument("-f", "--follow", action="store_true", help="until the trial has ended")
    parser.add_argument("-n", "--lines", type=int, help="only the last so many lines")
    declared.add_options(parser)


def run(asked: argparse.Namespace) -> int:
    """Print the log."""
    known = declared.read(asked, lint=False)
    entry = find(known.entries, asked.trial)
    files = [entry.folder / "log.txt", *job_logs(known, entry.trial.id)]
    there = [file for file in files if file.is_file()]
    if not there and not asked.follow:
        raise UsageError(f"{entry.trial.id}: has printed nothing yet ({entry.state})")
    for file in reversed(there):
        if len(there) > 1:
            print(f"==> {file} <==")
        lines = file.read_text(errors="replace").splitlines()
        print("\n".join(lines[-asked.lines :] if asked.lines else lines), flush=True)
    if asked.follow:
        follow(entry)
    return 0


def find(entries: Sequence[Entry], text: str) -> Entry:
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


def job_logs(known: Declared, trial: str) -> Iterator[Path]:
    """Yield the logs of the jobs that ran a trial, newest first; a rank writes one each."""
    from mlmodeldev.slurm.submission import submissions

    for submission in reversed(submissions(known.folder)):
        for task, trials in submission.tasks():
            if trial in trials:
                yield from sorted(submission.folder.glob(f"{task}_*_log.out"))


def follow(entry: Entry) -> None:
    """Print what is added to a trial's log until it has ended."""
    file = entry.folder / "log.txt"
    at = file.stat().st_size if file.exists() else 0
    while True:
        state = entry.again().state
        if file.exists():
            with file.open(errors="replace") as opened:
                opened.seek(at)
                sys.stdout.write(opened.read())
                sys.stdout.flush()
                at = opened.tell()
        if state in ("done", "failed", "pruned"):
            return
        time.sleep(0.5)
