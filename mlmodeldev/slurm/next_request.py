"""What the next jobs of a sweep should ask for, from what its trials have used.

Example::

    request = next_request(cluster, most, searches=False)
    request.settings(cluster)      # ["cluster.minutes=40", "cluster.mem_gb=6"]

Where nothing was measured nothing is changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlmodeldev.slurm.plan import trials_at_once, trials_per_task

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster

MARGIN = 1.25
"""Times the most that any trial has used."""
START_MINUTES = 2.0
"""A job's, until its trial begins."""
LAUNCHER_GIB = 0.5
"""Memory of what starts the trials in a job."""
CONTEXT_GIB = 0.5
"""GPU memory of each process beside what torch has taken: CUDA itself."""
BUSY = 0.9
"""Trials share a GPU as long as together they keep it busy for no more of the time."""
MOST_PER_GPU = 8
_HOUR = 60
_STEPS = ((_HOUR, 5), (4 * _HOUR, 15), (24 * _HOUR, 30), (math.inf, _HOUR))
"""Up to so many minutes, a limit is a multiple of so many."""
MARGINS = (
    f"Margins: {MARGIN} times the maximum, rounded up; of time besides {START_MINUTES:g} min to"
    f" start and the warning's; of memory {LAUNCHER_GIB} GiB for what starts the trials; of GPU"
    f" memory {CONTEXT_GIB} GiB a trial. Trials share a GPU up to {100 * BUSY:.0f} % of its time."
)


@dataclass(frozen=True)
class Most:
    """The most that any trial has used; None: not measured.

    Attributes:
        minutes: of a trial, all its attempts.
        cores: on average over a trial, of all its processes on a node.
        memory_gib: of a trial's processes on a node.
        gpu_memory_gib: of a trial's process on its GPU, and
        gpu_gib: the size of the smallest GPU.
        gpu_use: of the GPU's time, by all trials on it, 0 to 1.
    """

    minutes: float | None = None
    cores: float | None = None
    memory_gib: float | None = None
    gpu_memory_gib: float | None = None
    gpu_gib: float | None = None
    gpu_use: float | None = None


@dataclass(frozen=True)
class Request:
    """Values of ``cluster.*``; None: no reason for any."""

    minutes: int | None = None
    cpus_per_task: int | None = None
    mem_gb: int | None = None
    trials_per_gpu: int | None = None

    def settings(self, cluster: Cluster) -> list[str]:
        """Return those that differ from the cluster's, as they are typed."""
        return [
            f"cluster.{name}={value}"
            for name, value in vars(self).items()
            if value is not None and value != getattr(cluster, name)
        ]


def next_request(cluster: Cluster, most: Most, searches: bool = False) -> Request:
    """Return what to ask for.

    Args:
        cluster: what was asked for.
        most: what was used.
        searches: whether jobs draw trials until a search ends, so that no trial tells their time.
    """
    together = trials_per_gpu(cluster, most)
    next_cluster = cluster.model_copy(update={"trials_per_gpu": together or cluster.trials_per_gpu})
    slots = trials_at_once(next_cluster)
    rounds = -(-trials_per_task(next_cluster) // slots)
    minutes = cpus = memory = None
    if most.minutes is not None and not searches:
        needed = MARGIN * most.minutes * rounds + START_MINUTES + cluster.warn_seconds / 60
        minutes = rounded_minutes(needed)
    if most.cores is not None:
        cpus = max(1, math.ceil(round(MARGIN * most.cores * slots / cluster.tasks_per_node, 3)))
    if most.memory_gib is not None:
        memory = max(1, math.ceil(round(MARGIN * most.memory_gib * slots + LAUNCHER_GIB, 3)))
    return Request(minutes, cpus, memory, together)


def rounded_minutes(minutes: float) -> int:
    """Round a time limit up.

    >>> [rounded_minutes(m) for m in (1, 36, 61, 241, 1441)]
    [5, 40, 75, 270, 1500]
    """
    step = next(step for limit, step in _STEPS if minutes <= limit)
    return step * math.ceil(minutes / step)


def trials_per_gpu(cluster: Cluster, most: Most) -> int | None:
    """Return how many trials fit on a GPU, by its memory and its time; None: that is not told.

    Nor is it of trials with several GPUs or processes: those do not share.
    """
    if cluster.gpus != 1:
        return None
    if most.gpu_memory_gib is None or most.gpu_gib is None or most.gpu_use is None:
        return None
    by_memory = most.gpu_gib / (MARGIN * most.gpu_memory_gib + CONTEXT_GIB)
    by_use = BUSY * cluster.trials_per_gpu / max(most.gpu_use, 0.01)
    return max(1, min(MOST_PER_GPU, int(by_memory), int(by_use)))
