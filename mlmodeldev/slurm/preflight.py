"""What would make every job fail, refused before any is submitted.

Example::

    check_cluster(cluster, read_limits(cluster), Path("runs"))  # UsageError for the first mistake
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.slurm.outer_job import choices, chosen_clusters, with_choices
from mlmodeldev.slurm.plan import concurrent_jobs
from mlmodeldev.slurm.query import cluster_name
from mlmodeldev.slurm.script import cpus_per_task, memory_gb, python_words
from mlmodeldev.slurm.share import gpus_on, with_share

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm.limits import Limits, Node, Partition
    from mlmodeldev.slurm.outer_job import Choice

START_SECONDS = 30
"""A trial begins, and makes a step, in no less."""


def check_cluster(cluster: Cluster, limits: Limits, runs_dir: Path) -> None:
    """Refuse what Slurm would refuse, or leave pending for ever.

    Raises:
        UsageError: what was asked, and what there is.
    """
    check_settings(cluster)
    refuse_other_clusters(cluster)
    made = choices(cluster)
    cluster = with_choices(cluster)
    _partition(cluster, limits, made["partition"].where)
    _account(cluster, limits, made)
    _time(cluster, limits)
    _gpus(cluster, limits)
    _nodes(cluster, limits)
    check_python(cluster)
    refuse_memory(runs_dir)


def check_settings(cluster: Cluster) -> None:
    """Refuse settings that contradict each other; no Slurm is asked.

    Raises:
        UsageError: for the first of them.
    """
    if cluster.gpus and not concurrent_jobs(cluster):
        raise UsageError(
            f"cluster.max_gpus={cluster.max_gpus}: one job alone takes {cluster.gpus} GPUs"
            f" ({cluster.nodes} nodes × {cluster.tasks_per_node} tasks × {cluster.gpus_per_task});"
            f" try cluster.max_gpus={cluster.gpus}"
        )
    if cluster.minutes * 60 < cluster.warn_seconds + START_SECONDS:
        least = -(-(cluster.warn_seconds + START_SECONDS) // 60)
        raise UsageError(
            f"cluster.minutes={cluster.minutes}: trials are told to save"
            f" cluster.warn_seconds={cluster.warn_seconds} before the limit, which leaves no time"
            f" to begin: at least {least} minutes, or a later warning"
        )
    if cluster.tasks > 1 and cluster.trials_per_job * cluster.trials_per_gpu > 1:
        raise UsageError(
            "cluster.trials_per_job, cluster.trials_per_gpu: several trials share one task; not"
            f" with {cluster.tasks} tasks a trial; try 1 of each"
        )


def refuse_other_clusters(cluster: Cluster) -> None:
    """Refuse jobs for another cluster: its queue, its limits and its cancel would not be asked.

    Raises:
        UsageError: where another is chosen, by which name.
    """
    for where, names in chosen_clusters(cluster).items():
        own = cluster_name()
        if names.lower() != own:
            raise UsageError(
                f"{where}={names}: jobs go to the cluster of this machine ({own}), no other is"
                f" watched; leave it out, and for {names} submit from a login node of its own, or"
                " from inside of a job there"
            )


def _partition(cluster: Cluster, limits: Limits, where: str) -> None:
    for name in (cluster.partition or "").split(",") if cluster.partition else ():
        if name.strip() not in limits.partitions:
            raise _unknown(where, name.strip(), limits.partitions)
    partitions = limits.partitions_of(cluster.partition)
    if not partitions:
        names = ", ".join(sorted(limits.partitions))
        raise UsageError(f"cluster.partition=null: this cluster has no default; one of {names}")
    if not any(partition.up for partition in partitions):
        names = ",".join(partition.name for partition in partitions)
        raise UsageError(f"{where}={names}: is down (scontrol show partition)")


def _account(cluster: Cluster, limits: Limits, made: Mapping[str, Choice]) -> None:
    lists = [
        (name, allowed)
        for name, allowed, enforced in (
            ("account", limits.rules.accounts, "associations"),
            ("qos", limits.rules.qos, "qos"),
        )
        # a user's variable serves other commands, too: it is right if Slurm takes it
        if enforced in limits.enforced or not made[name].where.startswith("SBATCH_")
    ]
    partitions = limits.partitions_of(cluster.partition)
    lists += [("account", _union([p.accounts for p in partitions]))]
    lists += [("qos", _union([p.qos for p in partitions]))]
    for name, allowed in lists:
        where, value = made[name].where, made[name].value
        # Slurm takes their names in letters of any size
        if value is None or allowed is None or value.lower() in {each.lower() for each in allowed}:
            continue
        raise _unknown(where, value, allowed)


def _union(sets: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
    """Return what any of the partitions allows; None: one of them allows all."""
    limited = [each for each in sets if each is not None]
    return frozenset().union(*limited) if limited and len(limited) == len(sets) else None


def _time(cluster: Cluster, limits: Limits) -> None:
    most = limits.rules.minutes
    if most is not None and cluster.minutes > most:
        raise UsageError(
            f"cluster.minutes={cluster.minutes}: its QOS or account allows a job {most}; it would"
            " wait for ever (sacctmgr show qos)"
        )
    if limits.rules.over_partition_time:
        return
    partitions = limits.partitions_of(cluster.partition)
    allowed = [p.minutes for p in partitions if p.minutes is not None]
    if len(allowed) < len(partitions) or not allowed or cluster.minutes <= max(allowed):
        return
    others = [p for p in limits.partitions.values() if p not in partitions]
    longer = [p.name for p in others if p.minutes is None]
    longer += [
        f"{p.name} ({p.minutes})"
        for p in others
        if p.minutes is not None and p.minutes >= cluster.minutes
    ]
    raise UsageError(
        f"cluster.minutes={cluster.minutes}: partition {_names(partitions)} allows {max(allowed)}"
        + (f"; longer: {', '.join(longer)}" if longer else "")
    )


def _names(partitions: Sequence[Partition]) -> str:
    return ",".join(partition.name for partition in partitions)


def _gpus(cluster: Cluster, limits: Limits) -> None:
    rules = limits.rules
    for most, what in ((rules.gpus_per_job, "a job"), (rules.gpus_at_once, "you at once")):
        if most is not None and cluster.gpus > most:
            raise UsageError(
                f"cluster.gpus_per_task={cluster.gpus_per_task}: a job takes {cluster.gpus} GPUs;"
                f" its QOS or account allows {what} {most} (sacctmgr show qos)"
            )


def _nodes(cluster: Cluster, limits: Limits) -> None:
    partitions, nodes = limits.partitions_of(cluster.partition), limits.nodes_of(cluster.partition)
    where = f"partition {_names(partitions)}" if partitions else "this cluster"
    if not nodes:
        return
    if cluster.nodes > len(nodes):
        raise UsageError(f"cluster.nodes={cluster.nodes}: {where} has {len(nodes)}")
    if cluster.gpu_type and not any(cluster.gpu_type in n.gpu_types for n in nodes):
        types = frozenset().union(*(n.gpu_types for n in nodes))
        raise _unknown("cluster.gpu_type", cluster.gpu_type, types)
    each, settings = cluster.tasks_per_node, with_share(cluster, limits)
    for name, wanted, most in (
        ("gpus_per_task", each * cluster.gpus_per_task, _most(nodes, _gpus_of(cluster))),
        ("cpus_per_task", each * cpus_per_task(settings), _most(nodes, lambda n: n.cpus)),
        ("mem_gb", memory_gb(settings) * 1024, _most(nodes, lambda n: n.memory)),
    ):
        if wanted > most:
            scale = 1024 if name == "mem_gb" else 1
            raise UsageError(
                f"cluster.{name}={getattr(cluster, name)}: makes {wanted / scale:g} on a node with"
                f" {each} tasks; the largest node of {where} has {most / scale:g}"
            )


def _gpus_of(cluster: Cluster) -> Callable[[Node], int]:
    return lambda node: gpus_on(node, cluster.gpu_type)


def _most(nodes: Collection[Node], what: Callable[[Node], int]) -> int:
    return max(what(node) for node in nodes)


def check_python(cluster: Cluster) -> None:
    """Refuse an interpreter, or a command that starts one, that is not there.

    Raises:
        UsageError: naming it.
    """
    python, *more = python_words(cluster)
    if shutil.which(python) is None:
        what = "command" if more else "interpreter"
        raise UsageError(f"cluster.python={python}: no such {what} on this machine")


def _unknown(key: str, value: str, allowed: Collection[str]) -> UsageError:
    names = sorted(allowed)
    listed = ", ".join(names) or "none"
    return UsageError(f"{key}={value}: there is none{nearest(value, names)} (there are: {listed})")


MOUNTS = Path("/proc/self/mounts")
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_ON_A_DISK = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "overlay"})


def refuse_memory(runs_dir: Path) -> None:
    """Refuse a folder that no other machine can see.

    Raises:
        UsageError: it lies in memory.
    """
    kind = file_system(runs_dir)
    if kind in _IN_MEMORY:
        raise UsageError(
            f"artefacts.runs_dir={runs_dir}: lies in the memory of this machine ({kind}), where no"
            " job sees it; use a file system that all nodes share"
        )


def local_disk_warning(runs_dir: Path, nodes: Iterable[Node]) -> str:
    """Say that a folder seems to lie on this machine's own disk, where jobs run on others.

    It may be right nevertheless: the machine may be the one whose disk the nodes share.
    """
    kind = file_system(runs_dir)
    others = sorted(node.name for node in nodes if not _is_here(node))
    if kind not in _ON_A_DISK or not others:
        return ""
    return (
        f"artefacts.runs_dir={runs_dir}: lies on a disk of this machine ({kind}); jobs on"
        f" {others[0]}{' and others' if len(others) > 1 else ''} may not see it: use a file system"
        " that all nodes share"
    )


def _is_here(node: Node) -> bool:
    name = socket.gethostname()
    mine = {name, name.partition(".")[0], "localhost", "::1"}
    return node.address in mine or node.address.startswith("127.")


def file_system(path: Path) -> str:
    """Return the type of the file system that a path (or its nearest parent) lies on."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    path = path.resolve()
    mounts = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()]
    above = [(m, kind) for m, kind in mounts if path.is_relative_to(m)]
    return max(above, key=lambda mount: len(mount[0]))[1] if above else ""
