"""A sweep file that was edited after its trials had been submitted: said, and what follows.

Example::

    changes.tell(known, "status")
    # sweep/config.yaml has changed since it was submitted: 1 trial added (gtsqtqg3), none removed;
    # submit runs what was added
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.submission import Submission, submissions
from mlmodeldev.slurm.sweep_state import stop, undeclared

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState


_SHOWN = 5
_THEN = {
    "status": "submit runs what was added, submit --prune ends what was removed",
    "retry": "retry runs failed trials that are still declared, submit what was added",
    "submit": "what was added runs now, what was removed is left alone (--prune ends it)",
}


@dataclass(frozen=True)
class Change:
    """Trials that the file declares now and did not when it was submitted, and the reverse."""

    added: list[str]
    removed: list[str]


def change(known: SweepState) -> Change | None:
    """Return how the declared trials differ from those last submitted; None where they don't.

    A search declares no list: both lists are empty when its file has changed.
    """
    last = _last(known)
    if last is None or last.sweep_file.read_bytes() == known.file.read_bytes():
        return None
    if known.sweep.method == "bayes":
        return Change([], [])
    before = _declared(last, known)
    now = [entry.trial.id for entry in known.entries]
    added = [trial for trial in now if trial not in before]
    removed = [trial for trial in before if trial not in set(now)]
    return Change(added, removed) if added or removed else None


def print_changes(known: SweepState, command: str) -> Change | None:
    """Say in one sentence what has changed, and what a command does about it.

    Args:
        command: ``status``, ``retry`` or ``submit``.
    """
    found = change(known)
    if found is None:
        return None
    if known.sweep.method == "bayes":
        what = "workers in the queue keep the space that they were submitted with, new ones take"
        what += " this one"
    else:
        added, removed = _named(found.added, "added"), _named(found.removed, "removed")
        what = f"{added}, {removed}; {_THEN[command]}"
    print(f"{known.file} has changed since it was submitted: {what}", file=sys.stderr)
    return found


def _last(known: SweepState) -> Submission | None:
    made = [s for s in submissions(known.folder) if s.sweep_file.is_file()]
    return made[-1] if made else None


def _declared(last: Submission, known: SweepState) -> dict[str, None]:
    """Return what the file declared then; asked as now, so that only the file can differ."""
    from mlmodeldev.sweep import load

    try:
        trials = load(last.sweep_file).trials(known.count, known.seed)
        return dict.fromkeys(trial.id for trial in trials)
    except UsageError:  # written by another version
        return dict.fromkeys(trial for _, trials in last.tasks() for trial in trials)


def _named(trials: Collection[str], how: str) -> str:
    if not trials:
        return f"none {how}"
    names = ", ".join(list(trials)[:_SHOWN]) + (", ..." if len(trials) > _SHOWN else "")
    return f"{len(trials)} trial{'s' if len(trials) > 1 else ''} {how} ({names})"


_ORPHANS_SHOWN = 5


def print_orphans(known: SweepState, prune: bool) -> list[str]:
    """Say which trials are no longer declared; return the identities of those that were stopped.

    Folders are never deleted. Stopped trials save their state first.

    Args:
        known: the sweep, with all that it declares.
        prune: end those that run or wait in the queue.
    """
    strays = undeclared(known.entries, known.folder)
    jobs = _jobs(known.folder) if prune else {}
    declared = {entry.trial.id for entry in known.entries}
    there = {folder.name for folder in strays} | declared
    strays += [known.folder / trial for trial in jobs if trial not in there]  # not begun yet
    if not strays:
        return []
    names = ", ".join(folder.name for folder in strays[:_ORPHANS_SHOWN])
    more = f" and {len(strays) - _SHOWN} more" if len(strays) > _ORPHANS_SHOWN else ""
    hint = "" if prune else "; --prune ends those that run"
    print(f"no longer declared: {names}{more} (their folders stay{hint})", file=sys.stderr)
    stopped = _stop(strays, jobs) if prune else []
    if stopped:
        print(f"told to end: {', '.join(stopped)}", file=sys.stderr)
    return stopped


def _stop(strays: list[Path], jobs: dict[str, str]) -> list[str]:
    stopped = []
    for folder in strays:
        job = jobs.get(folder.name)
        if job is not None:
            subprocess.run(["scancel", job], check=False, timeout=60)
        if stop(folder) or job is not None:
            stopped.append(folder.name)
    return stopped


def _jobs(base: Path) -> dict[str, str]:
    """Return the job of each trial that is in the queue; a job of several trials is left alone."""
    from mlmodeldev.slurm.query import slurm_is_here
    from mlmodeldev.slurm.submission import tasks

    if not slurm_is_here():
        return {}
    queued = {trial: task.job for trial, task in tasks(base).items() if task.queued}
    counts = [*queued.values()]
    return {trial: job for trial, job in queued.items() if counts.count(job) == 1}
