"""How long trials have run, and how long they and their sweep still take.

Example::

    half = {"seconds": 30, "epoch": 5, "epochs": 10}
    sweep_seconds_left([("done", {"seconds": 60}), ("running", half), ("missing", {})])   # 90.0
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlmodeldev.slurm.trial_entries import ENDED

OPEN = ("missing", "queued", "running", "interrupted", "lost")
"""States after which something is still to run."""

Timed = tuple[str, Mapping[str, Any]]
"""A trial's state (`slurm.plan.state`) and its record."""


def seconds_spent(trial: Timed) -> float:
    """Return how long a trial has run, the attempt that runs now included."""
    state, record = trial
    seconds = float(record.get("seconds") or 0)
    if state == "running" and record.get("begun"):
        seconds += max(0.0, time.time() - float(record["begun"]))
    return seconds


def epochs_an_hour(trial: Timed) -> float | None:
    """Return a trial's epochs by the time that they took, validations and pauses within included.

    Returns:
        None: no epoch has ended.
    """
    epoch, spent = trial[1].get("epoch") or 0, seconds_spent(trial)
    return 3600 * epoch / spent if epoch and spent else None


def usual_seconds(trials: Sequence[Timed]) -> float | None:
    """Return the median of the trials that ended; None: none has."""
    done = [seconds_spent(each) for each in trials if each[0] in ENDED and seconds_spent(each)]
    return statistics.median(done) if done else None


def trial_seconds_left(trial: Timed, usual: float | None) -> float | None:
    """Return what a running trial still takes: by its epochs so far, else as long as is usual.

    Args:
        usual: of `usual_seconds`.
    """
    record, spent = trial[1], seconds_spent(trial)
    epoch, epochs = record.get("epoch") or 0, record.get("epochs") or 0
    if epoch and epochs:
        return max(0.0, spent * (epochs / epoch - 1))
    return None if usual is None else max(0.0, usual - spent)


def sweep_seconds_left(trials: Sequence[Timed], undrawn: int = 0) -> float | None:
    """Return the time to the end of what is open, if as many go on at once as run now.

    A trial that runs takes what its epochs so far foretell, any other the median of those done;
    until one is done, the median of what the running ones will have taken.

    Args:
        undrawn: trials that a search still draws.

    Returns:
        None: none runs, or nothing foretells how long one takes.
    """
    usual = usual_seconds(trials)
    running = [each for each in trials if each[0] == "running"]
    waiting = sum(state in OPEN for state, _ in trials) - len(running) + undrawn
    if usual is None:
        by_epochs = [(each, trial_seconds_left(each, None)) for each in running]
        totals = [seconds_spent(each) + left for each, left in by_epochs if left is not None]
        usual = statistics.median(totals) if totals else None
    if not running or usual is None:
        return None
    left = [trial_seconds_left(each, usual) or 0.0 for each in running]
    return max((sum(left) + waiting * usual) / len(running), *left)
