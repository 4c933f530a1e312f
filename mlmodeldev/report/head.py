"""The page's first lines: the best value, how far the sweep is, what it took, when it ends.

Example::

    head(results, shown, cluster)["best"]       # {"name": "lr=0.003", "mean": 0.93, "std": 0.01, …}
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm.trial_entries import ENDED

if TYPE_CHECKING:
    from mlmodeldev.report.content import Shown
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.sweep.results import Results

_OPEN = ("missing", "queued", "running", "interrupted", "lost")
"""States after which something is still to run."""


def head(results: Results, shown: Sequence[Shown], cluster: Cluster) -> dict[str, Any]:
    """Return the best point, the count of each state, the time used and the time left.

    Args:
        results: the sweep's.
        shown: its trials.
        cluster: what a trial's job asks for; its GPUs make hours into GPU-hours.
    """
    spent = [_seconds(each) for each in shown]
    gpus = cluster.gpus_per_task * cluster.tasks_per_node * cluster.nodes
    gpus = gpus if cluster.launcher == "slurm" else 0
    return {
        "best": _best(results),
        "states": dict(Counter(each.state for each in shown)),
        "trials": len(shown),
        "hours": round(sum(spent) / 3600, 3),
        "gpu_hours": round(sum(spent) * gpus / cluster.trials_per_gpu / 3600, 3) if gpus else None,
        "seconds_left": seconds_left(shown),
    }


def _best(results: Results) -> dict[str, Any] | None:
    """Return the first point: of points that ended, the best mean over its replicates."""
    return next((group.as_dict() for group in results.groups if group.mean is not None), None)


def _seconds(each: Shown) -> float:
    """Return how long a trial has run, the attempt that runs now included."""
    record = each.entry.record
    seconds = float(record.get("seconds") or 0)
    if each.state == "running" and record.get("begun"):
        seconds += max(0.0, time.time() - float(record["begun"]))
    return seconds


def seconds_left(shown: Sequence[Shown]) -> float | None:
    """Return the time to the end of what is open, if as many go on at once as run now.

    A trial that runs takes what its epochs so far foretell, any other the median of those done.

    Returns:
        None: no trial is done, or none runs, or nothing is left to run.
    """
    done = [_seconds(each) for each in shown if each.state in ENDED and _seconds(each)]
    running = [each for each in shown if each.state == "running"]
    waiting = sum(each.state in _OPEN for each in shown) - len(running)
    if not done or not running:
        return None
    usual = statistics.median(done)
    ahead = sum(_ahead(each, usual) for each in running) + waiting * usual
    longest = max(_ahead(each, usual) for each in running)
    return max(ahead / len(running), longest)


def _ahead(each: Shown, usual: float) -> float:
    record, spent = each.entry.record, _seconds(each)
    epoch, epochs = record.get("epoch") or 0, record.get("epochs") or 0
    if epoch and epochs:
        return max(0.0, spent * (epochs / epoch - 1))
    return max(0.0, usual - spent)
