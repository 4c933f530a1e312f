"""Trials that a sweep's folder holds and its file no longer declares: told of, stopped if asked.

Example::

    tell(known, prune=True)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.slurm.reconcile import stop, undeclared

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import Declared

_SHOWN = 5


def tell(known: Declared, prune: bool) -> list[str]:
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
    names = ", ".join(folder.name for folder in strays[:_SHOWN])
    more = f" and {len(strays) - _SHOWN} more" if len(strays) > _SHOWN else ""
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
    from mlmodeldev.slurm.tasks import tasks

    if not slurm_is_here():
        return {}
    queued = {trial: task.job for trial, task in tasks(base).items() if task.queued}
    counts = [*queued.values()]
    return {trial: job for trial, job in queued.items() if counts.count(job) == 1}
