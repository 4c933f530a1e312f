"""What the cluster has and what it allows this user, as scontrol and sacctmgr tell it.

What only accounting knows is left out where there is no accounting.

Example::

    limits = read_limits(settings.cluster)
    limits.partitions["gpu"].minutes       # the partition's time limit
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlmodeldev.slurm.query import (
    ask_slurm,
    read_fields,
    run_command,
    seconds_of,
    user_name,
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
class Rules:
    """What accounting allows this user.

    Attributes:
        accounts: the user's; None: not known.
        qos: the cluster's; None: not known.
        max_submit: jobs in the queue, array tasks counted one by one.
        max_jobs: jobs at once.
        gpus_at_once: over all jobs of the user.
        gpus_per_job: of one job.
        minutes: of one job.
    """

    accounts: frozenset[str] | None = None
    qos: frozenset[str] | None = None
    max_submit: int | None = None
    max_jobs: int | None = None
    gpus_at_once: int | None = None
    gpus_per_job: int | None = None
    minutes: int | None = None


@dataclass(frozen=True)
class Limits:
    """What this cluster allows this user."""

    max_array: int = 1001
    """Tasks of one array."""
    partitions: dict[str, Partition] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    rules: Rules = field(default_factory=Rules)
    """What accounting allows."""

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
        cluster: what will be asked for; its QOS and its partition's set limits.

    Raises:
        UsageError: Slurm does not answer.
    """
    config = ask_slurm("scontrol", "show", "config")
    enforced = re.search(r"(?m)^AccountingStorageEnforce\s*=.*(limits|safe)", config)
    limits = Limits(
        max_array=_max_array(config),
        partitions={p.name: p for p in _partitions()},
        nodes=tuple(_nodes()),
    )
    partitions = limits.partitions_of(cluster.partition)
    own = {partition.own_qos for partition in partitions if partition.own_qos}
    names = {cluster.qos, *(own if len(partitions) == 1 else ())}
    rules = read_rules(names, bool(enforced), cluster.account)
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
            cpu_memory=_number(entry.get("MaxMemPerCPU", "")),
            node_memory=_number(entry.get("MaxMemPerNode", "")),
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
            cpus=_number(entry.get("CPUEfctv", "")) or _number(entry.get("CPUTot", "")) or 0,
            memory=(_number(entry.get("RealMemory", "")) or 0)
            - (_number(entry.get("MemSpecLimit", "")) or 0),
            gpus=sum(gpus.values()),
            gpu_types=frozenset(name for name in gpus if name),
            gpus_of_type=gpus,
            features=frozenset(features.split(",")) - {""},
        )


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


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
        gpus[name] = gpus.get(name, 0) + (_number(count) or 0)
    return gpus


def minutes_of(text: str) -> int | None:
    """Read Slurm's time in whole minutes; None: no limit."""
    seconds = seconds_of(text)
    return None if seconds is None else seconds // 60


def _names(text: str) -> frozenset[str] | None:
    return None if text in ("ALL", "") else frozenset(text.split(","))


def _records(*command: str) -> Iterator[dict[str, str]]:
    yield from filter(None, map(read_fields, ask_slurm(*command).splitlines()))


# --- sacctmgr

_QOS = ("Name", "MaxSubmitPU", "MaxJobsPU", "MaxTRESPU", "MaxTRES", "MaxWall")
_ASSOCIATION = ("Account", "DefaultQOS", "MaxSubmit", "MaxJobs", "MaxTRES", "MaxWall")
DEFAULT_QOS = "normal"
"""The QOS of jobs for which neither the user nor the association names one."""


def read_rules(names: Collection[str | None], enforced: bool, account: str | None = None) -> Rules:
    """Ask sacctmgr; nothing is known where there is no accounting.

    Args:
        names: the QOS that will count: the one asked for (None: the default), the partition's.
        enforced: whether Slurm holds users to the limits.
        account: that is charged; None: any of the user's.
    """
    user = user_name()
    mine = _table("assoc", _ASSOCIATION, f"user={user}") if user else []
    qos_rows = _table("qos", _QOS)
    accounts = frozenset(row["Account"] for row in mine if row["Account"]) or None
    qos = frozenset(row["Name"] for row in qos_rows) or None
    if not enforced:
        return Rules(accounts, qos)
    mine = [row for row in mine if row["Account"] == account] or mine
    defaults = {row["DefaultQOS"] for row in mine} - {""} or {DEFAULT_QOS}
    wanted = {name for name in names if name} | (defaults if None in names else set())
    rows = [row for row in qos_rows if row["Name"] in wanted]
    return Rules(
        accounts,
        qos,
        max_submit=_least([r["MaxSubmit"] for r in mine] + [r["MaxSubmitPU"] for r in rows]),
        max_jobs=_least([r["MaxJobs"] for r in mine] + [r["MaxJobsPU"] for r in rows]),
        gpus_at_once=_least(_gpus(r["MaxTRESPU"]) for r in rows),
        gpus_per_job=_least(_gpus(r["MaxTRES"]) for r in [*mine, *rows]),
        minutes=min(filter(None, (minutes_of(r["MaxWall"]) for r in [*mine, *rows])), default=None),
    )


def _gpus(limits: str) -> str:
    """Return the number of GPUs in ``cpu=40,gres/gpu=4``, as text; empty where there is none."""
    match = re.search(r"gres/gpu=(\d+)", limits)
    return match[1] if match else ""


def _least(values: Iterable[str]) -> int | None:
    numbers = map(_number, values)
    return min((number for number in numbers if number is not None), default=None)


def _table(what: str, columns: tuple[str, ...], *where: str) -> list[dict[str, str]]:
    command = ("sacctmgr", "show", what, *where, f"format={','.join(columns)}", "-n", "-P")
    done = run_command(*command, seconds=20)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    rows = [line.split("|") for line in lines]
    return [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]
