"""What the cluster has and what it allows this user, as scontrol and sacctmgr tell it.

What only accounting knows (`mlmodeldev.slurm.accounting`) is left out where there is none.

Example::

    limits = read_limits(settings.cluster)
    limits.partitions["gpu"].minutes       # the partition's time limit
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlmodeldev.slurm.accounting import Rules, read_rules
from mlmodeldev.slurm.outer_job import with_choices
from mlmodeldev.slurm.query import (
    ask_slurm,
    cluster_name,
    minutes_of,
    number_of,
    read_fields,
)

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster


@dataclass(frozen=True)
class Partition:
    """A partition of the cluster; None: no limit, or unknown."""

    name: str
    default: bool = False
    up: bool = True
    minutes: int | None = None
    accounts: frozenset[str] | None = None
    qos: frozenset[str] | None = None
    """Those with which a job may come in."""
    own_qos: str = ""
    """The one whose limits hold for all jobs in it."""
    cpu_memory: int | None = None
    node_memory: int | None = None
    """MiB that a job may take for each CPU, and on each node."""
    has_memory_rule: bool = False
    """Whether Slurm itself gives a job memory by its GPUs."""


@dataclass(frozen=True)
class Node:
    """What one node has."""

    name: str
    address: str
    partitions: frozenset[str]
    cpus: int
    memory: int
    """MiB."""
    gpus: int
    gpu_types: frozenset[str]
    gpus_of_type: Mapping[str, int] = field(default_factory=dict)
    features: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Limits:
    """What this cluster allows this user."""

    max_array: int = 1001
    """Tasks of one array."""
    partitions: dict[str, Partition] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    rules: Rules = field(default_factory=Rules)
    """What accounting allows."""
    enforced: frozenset[str] = frozenset()
    """What Slurm holds jobs to (AccountingStorageEnforce), such as ``associations``, ``qos``."""

    def partitions_of(self, names: str | None) -> list[Partition]:
        """Return the partitions that ``gpu,long`` names, any of which may take a job.

        Args:
            names: None: the default one. Those that are not there are left out.
        """
        if names is None:
            return [p for p in self.partitions.values() if p.default][:1]
        wanted = [name.strip() for name in names.split(",")]
        return [self.partitions[name] for name in wanted if name in self.partitions]

    def nodes_of(self, names: str | None) -> list[Node]:
        """Return the nodes of these partitions; all of the cluster where none is named."""
        names_of = {partition.name for partition in self.partitions_of(names)}
        return [node for node in self.nodes if not names_of or names_of & node.partitions]


def read_limits(cluster: Cluster) -> Limits:
    """Ask Slurm what it allows.

    Args:
        cluster: what will be asked for; its account, its QOS and its partition's set limits,
            wherever they are chosen (`with_choices`).

    Raises:
        UsageError: Slurm does not answer.
    """
    cluster = with_choices(cluster)
    config = ask_slurm("scontrol", "show", "config")
    match = re.search(r"(?m)^AccountingStorageEnforce\s*=\s*(\S+)", config)
    limits = Limits(
        max_array=_max_array(config),
        partitions={p.name: p for p in _partitions()},
        nodes=tuple(_nodes()),
        enforced=frozenset(match[1].split(",") if match else ()),
    )
    partitions = limits.partitions_of(cluster.partition)
    rules = read_rules(
        {partition.name: partition.own_qos for partition in partitions},
        cluster_name(config),
        account=cluster.account,
        qos=cluster.qos,
        enforced=bool(limits.enforced & {"limits", "safe"}),
    )
    return dataclasses.replace(limits, rules=rules)


def _max_array(config: str) -> int:
    """Return how many tasks an array may have: MaxArraySize, or max_array_tasks below it."""
    patterns = (r"(?m)^MaxArraySize\s*=\s*([0-9]{1,18})\b", r"\bmax_array_tasks=([0-9]{1,18})\b")
    sizes = [int(match[1]) for each in patterns if (match := re.search(each, config))]
    return max(1, min(sizes, default=1001))


# --- scontrol


def _partitions() -> Iterator[Partition]:
    # -a: they may be hidden, and take jobs all the same
    for entry in _records("scontrol", "-a", "-o", "show", "partition"):
        if "PartitionName" not in entry:
            continue  # a line of the site's own
        yield Partition(
            name=entry["PartitionName"],
            default=entry.get("Default") == "YES",
            up=entry.get("State", "UP") == "UP",
            minutes=minutes_of(entry.get("MaxTime", "UNLIMITED")),
            accounts=_names(entry.get("AllowAccounts", "ALL")),
            qos=_names(entry.get("AllowQos", "ALL")),
            own_qos=entry.get("QoS", "N/A").removeprefix("N/A"),
            cpu_memory=number_of(entry.get("MaxMemPerCPU", "")),
            node_memory=number_of(entry.get("MaxMemPerNode", "")),
            has_memory_rule="DefMemPerGPU" in entry.get("JobDefaults", ""),
        )


def _nodes() -> Iterator[Node]:
    for entry in _records("scontrol", "-a", "-o", "show", "node"):
        if "NodeName" not in entry:
            continue
        gpus = read_gres(entry.get("Gres", ""))
        features = entry.get("ActiveFeatures", "").removeprefix("(null)")
        yield Node(
            name=entry["NodeName"],
            address=entry.get("NodeAddr", ""),
            partitions=frozenset(entry.get("Partitions", "").split(",")),
            # the effective ones: some may be kept for the system
            cpus=number_of(entry.get("CPUEfctv", "")) or number_of(entry.get("CPUTot", "")) or 0,
            memory=(number_of(entry.get("RealMemory", "")) or 0)
            - (number_of(entry.get("MemSpecLimit", "")) or 0),
            gpus=sum(gpus.values()),
            gpu_types=frozenset(name for name in gpus if name),
            gpus_of_type=gpus,
            features=frozenset(features.split(",")) - {""},
        )


def read_gres(text: str) -> dict[str, int]:
    """Read the GPUs of a node by their types; those without a type under an empty name.

    A type may begin with a digit, and sockets and indices in brackets hold commas.

    >>> read_gres("gpu:3090:4(S:0-1),gpu:3g.20gb:2(S:0,2),shard:8")
    {'3090': 4, '3g.20gb': 2}
    """
    gpus: dict[str, int] = {}
    for part in re.sub(r"\([^)]*\)", "", text).split(","):
        kind, *fields = part.strip().split(":")
        if kind != "gpu":
            continue
        *names, count = fields or ["1"]
        name = ":".join(names)
        gpus[name] = gpus.get(name, 0) + (number_of(count) or 0)
    return gpus


def _names(text: str) -> frozenset[str] | None:
    return None if text in ("ALL", "") else frozenset(text.split(","))


def _records(*command: str) -> Iterator[dict[str, str]]:
    yield from filter(None, map(read_fields, ask_slurm(*command).splitlines()))
