"""The page's first lines: the best value, how far the sweep is, what it took, when it ends.

Example::

    head(results, shown, cluster)["best"]       # {"name": "lr=0.003", "mean": 0.93, "std": 0.01, …}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm.time_left import seconds_spent, sweep_seconds_left

if TYPE_CHECKING:
    from mlmodeldev.report.content import Shown
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.sweep.results import Results


def head(
    results: Results, shown: Sequence[Shown], cluster: Cluster, undrawn: int = 0
) -> dict[str, Any]:
    """Return the best point, the count of each state, the time used and the time left.

    Args:
        results: the sweep's.
        shown: its trials.
        cluster: what a trial's job asks for; its GPUs make hours into GPU-hours.
        undrawn: trials that a search still draws.
    """
    timed = [(each.state, each.entry.record) for each in shown]
    spent = [seconds_spent(each) for each in timed]
    gpus = cluster.gpus_per_task * cluster.tasks_per_node * cluster.nodes
    gpus = gpus if cluster.launcher == "slurm" else 0
    return {
        "best": _best(results),
        "states": dict(Counter(each.state for each in shown)),
        "trials": len(shown),
        "hours": round(sum(spent) / 3600, 3),
        "gpu_hours": round(sum(spent) * gpus / cluster.trials_per_gpu / 3600, 3) if gpus else None,
        "seconds_left": sweep_seconds_left(timed, undrawn),
    }


def _best(results: Results) -> dict[str, Any] | None:
    """Return the first point: of points that ended, the best mean over its replicates."""
    return next((group.as_dict() for group in results.groups if group.mean is not None), None)
