"""The CPUs and the memory that go with a job's GPUs: the node's share of them.

A job that takes two of a node's four GPUs and one CPU too many keeps the other two from everybody;
one that takes the default of one CPU waits for its data. ``cluster.cpus_per_task=auto`` and
``cluster.mem_gb=auto`` are what the node has, divided by its GPUs, times those asked for.

Example::

    cluster = with_share(settings.cluster, read_limits(settings.cluster))
    cluster.cpus_per_task, cluster.mem_gb         # 8, 31.25
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlmodeldev.slurm.outer_job import with_choices
from mlmodeldev.slurm.script import CPUS

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm.limits import Limits, Node, Partition


def with_share(cluster: Cluster, limits: Limits | None) -> Cluster:
    """Return the settings with numbers in place of ``auto``, and with `with_choices`.

    Where nodes differ the smallest share counts, so that each of them can take the job. Without
    GPUs, or where Slurm was not asked, it is a few CPUs and the cluster's default memory.

    Args:
        cluster: the settings.
        limits: what Slurm has; None: not asked.
    """
    cluster = with_choices(cluster)
    each = cluster.tasks_per_node * cluster.gpus_per_task
    nodes = suitable_nodes(cluster, limits) if limits and each else []
    partitions = limits.partitions_of(cluster.partition) if limits else []
    cpus, memory = cluster.cpus_per_task, cluster.mem_gb
    if cpus == "auto":
        cpus = _cpus(cluster, nodes) if nodes else _few_cpus(cluster, limits)
    if memory == "auto":
        memory = _memory(cluster, cpus, nodes, partitions) if nodes else None
    return cluster.model_copy(update={"cpus_per_task": cpus, "mem_gb": memory})


def suitable_nodes(cluster: Cluster, limits: Limits) -> list[Node]:
    """Return the nodes that have the GPUs that a job takes on each."""
    each, wanted = cluster.tasks_per_node * cluster.gpus_per_task, cluster.constraint

    def suits(node: Node) -> bool:
        there = not wanted or not wanted.isidentifier() or wanted in node.features
        return there and gpus_on(node, cluster.gpu_type) >= each

    return [node for node in limits.nodes_of(cluster.partition) if suits(node)]


def gpus_on(node: Node, kind: str | None) -> int:
    """Return how many GPUs of a type a node has; None: of any."""
    return node.gpus_of_type.get(kind, 0) if kind else node.gpus


def _cpus(cluster: Cluster, nodes: Sequence[Node]) -> int:
    return max(1, min(node.cpus * cluster.gpus_per_task // node.gpus for node in nodes))


def _few_cpus(cluster: Cluster, limits: Limits | None) -> int:
    """Return as many as ever, if the largest node has them."""
    nodes = limits.nodes_of(cluster.partition) if limits else []
    most = max((node.cpus // cluster.tasks_per_node for node in nodes), default=CPUS)
    return max(1, min(CPUS, most))


def _memory(
    cluster: Cluster, cpus: int, nodes: Sequence[Node], partitions: Sequence[Partition]
) -> float | None:
    """Return the GiB on each node; None: Slurm itself shares it out, or tells of no memory."""
    if any(partition.has_memory_rule for partition in partitions):
        return None
    each = cluster.tasks_per_node * cluster.gpus_per_task
    share = min(node.memory * each // node.gpus for node in nodes)
    limits = [p.node_memory for p in partitions if p.node_memory]
    limits += [p.cpu_memory * cpus * cluster.tasks_per_node for p in partitions if p.cpu_memory]
    least = min([share, *limits])
    return least / 1024 if least > 1 else None  # RealMemory=1: the site does not say
