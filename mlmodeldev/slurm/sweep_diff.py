"""A sweep file that was edited after its trials had been submitted: said, and what follows.

Example::

    print_changes(sweep_state, "status")
    # sweep/config.yaml has changed since it was submitted: 1 trial added (gtsqtqg3), none removed;
    # submit runs what was added
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.query import run_command, slurm_is_here
from mlmodeldev.slurm.submission import Submission, submissions, trial_jobs
from mlmodeldev.slurm.trial_entries import stop_trial, undeclared_folders

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState

_SHOWN = 5
"""Trials named at most."""
_CONSEQUENCES = {
    "status": "submit runs what was added, submit --prune ends what was removed",
    "retry": "retry runs failed trials that are still declared, submit what was added",
    "submit": "what was added runs now, what was removed is left alone (--prune ends it)",
}


@dataclass(frozen=True)
class Change:
    """Trials that the file declares now and did not when it was submitted, and the reverse."""

    added: list[str]
    removed: list[str]


def find_change(sweep_state: SweepState) -> Change | None:
    """Return how the declared trials differ from those last submitted; None where they don't.

    A search declares no list: both lists are empty when its file has changed.
    """
    last = next((s for s in reversed(submissions(sweep_state.folder)) if s.sweep_file.is_file()),
                None)  # fmt: skip
    if last is None or last.sweep_file.read_bytes() == sweep_state.file.read_bytes():
        return None
    if sweep_state.is_search:
        return Change([], [])
    before = _submitted_trials(last, sweep_state)
    now = dict.fromkeys(entry.trial.id for entry in sweep_state.entries)
    added = [trial for trial in now if trial not in before]
    removed = [trial for trial in before if trial not in now]
    return Change(added, removed) if added or removed else None


def _submitted_trials(last: Submission, sweep_state: SweepState) -> dict[str, None]:
    """Return what the file declared then; asked as now, so that only the file can differ."""
    from mlmodeldev.sweep import load

    try:
        trials = load(last.sweep_file, sweep_state.file).trials(sweep_state.count, sweep_state.seed)
        return dict.fromkeys(trial.id for trial in trials)
    except UsageError:  # written by another version
        return dict.fromkeys(trial for _, trials in last.tasks() for trial in trials)


def print_changes(sweep_state: SweepState, command: str) -> Change | None:
    """Say in one sentence what has changed, and what a command does about it.

    Args:
        command: ``status``, ``retry`` or ``submit``.
    """
    change = find_change(sweep_state)
    if change is None:
        return None
    if sweep_state.is_search:
        what = "workers in the queue keep the space that they were submitted with, new ones take"
        what += " this one"
    else:
        added, removed = _count(change.added, "added"), _count(change.removed, "removed")
        what = f"{added}, {removed}; {_CONSEQUENCES[command]}"
    print(f"{sweep_state.file} has changed since it was submitted: {what}", file=sys.stderr)
    return change


def _count(trials: Collection[str], how: str) -> str:
    if not trials:
        return f"none {how}"
    names = ", ".join(list(trials)[:_SHOWN]) + (", ..." if len(trials) > _SHOWN else "")
    return f"{len(trials)} trial{'s' if len(trials) > 1 else ''} {how} ({names})"


# --- trials that are declared no more


def print_orphans(sweep_state: SweepState, prune: bool) -> list[str]:
    """Say which trials are no longer declared; return the identities of those that were stopped.

    Folders are never deleted. Stopped trials save their state first.

    Args:
        sweep_state: the sweep, with all that it declares.
        prune: end those that run or wait in the queue.
    """
    orphans = undeclared_folders(sweep_state.entries, sweep_state.folder)
    jobs = _queued_jobs(sweep_state.folder) if prune else {}
    names = {folder.name for folder in orphans} | {e.trial.id for e in sweep_state.entries}
    orphans += [sweep_state.folder / trial for trial in jobs if trial not in names]  # not begun yet
    if not orphans:
        return []
    few = ", ".join(folder.name for folder in orphans[:_SHOWN])
    more = f" and {len(orphans) - _SHOWN} more" if len(orphans) > _SHOWN else ""
    hint = "" if prune else "; --prune ends those that run"
    print(f"no longer declared: {few}{more} (their folders stay{hint})", file=sys.stderr)
    stopped = _stop(orphans, jobs) if prune else []
    if stopped:
        print(f"told to end: {', '.join(stopped)}", file=sys.stderr)
    return stopped


def _queued_jobs(base: Path) -> dict[str, str]:
    """Return the job of each trial that is in the queue; a job of several trials is left alone."""
    if not slurm_is_here():
        return {}
    queued = {trial: task.job for trial, task in trial_jobs(base).items() if task.queued}
    trials = Counter(queued.values())
    return {trial: job for trial, job in queued.items() if trials[job] == 1}


def _stop(trials: list[Path], jobs: dict[str, str]) -> list[str]:
    stopped = []
    for folder in trials:
        job = jobs.get(folder.name)
        if job is not None:
            print(run_command("scancel", job).stderr, end="", file=sys.stderr)
        if stop_trial(folder) or job is not None:
            stopped.append(folder.name)
    return stopped
