"""What the cluster has and what it allows this user, as scontrol and sacctmgr tell it.

What only accounting knows is left out where there is no accounting.

Example::

    limits = read_limits(settings.cluster)
    limits.partitions["gpu"].minutes       # the partition's time limit
"""

from __future__ import annotations

import dataclasses
import getpass
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlmodeldev.slurm.query import ask_slurm, read_fields, run_command, seconds_of

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
    """

    accounts: frozenset[str] | None = None
    qos: frozenset[str] | None = None
    max_submit: int | None = None
    max_jobs: int | None = None
    gpus_at_once: int | None = None
    gpus_per_job: int | None = None


@dataclass(frozen=True)
class Limits:
    """What this cluster allows this user."""

    max_array: int = 1001
    partitions: dict[str, Partition] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    rules: Rules = field(default_factory=Rules)
    """What accounting allows."""

    def partition(self, name: str | None) -> Partition | None:
        """Return a partition, or the default one."""
        if name is not None:
            return self.partitions.get(name)
        return next((p for p in self.partitions.values() if p.default), None)


def read_limits(cluster: Cluster) -> Limits:
    """Ask Slurm what it allows.

    Args:
        cluster: what will be asked for; its QOS and its partition's set limits.

    Raises:
        UsageError: Slurm does not answer.
    """
    config = ask_slurm("scontrol", "show", "config")
    match = re.search(r"(?m)^MaxArraySize\s*=\s*(\d+)", config)
    enforced = re.search(r"(?m)^AccountingStorageEnforce\s*=.*(limits|safe)", config)
    limits = Limits(
        max_array=int(match[1]) if match else 1001,
        partitions={p.name: p for p in _partitions()},
        nodes=tuple(_nodes()),
    )
    partition = limits.partition(cluster.partition)
    names = {cluster.qos, *([partition.own_qos] if partition and partition.own_qos else [])}
    return dataclasses.replace(limits, rules=read_rules(names, bool(enforced)))


# --- scontrol


def _partitions() -> Iterator[Partition]:
    for entry in _records("scontrol", "-o", "show", "partition"):
        yield Partition(
            name=entry["PartitionName"],
            default=entry.get("Default") == "YES",
            up=entry.get("State", "UP") == "UP",
            minutes=minutes_of(entry.get("MaxTime", "UNLIMITED")),
            accounts=_names(entry.get("AllowAccounts", "ALL")),
            qos=_names(entry.get("AllowQos", "ALL")),
            own_qos=entry.get("QoS", "N/A").removeprefix("N/A"),
        )


def _nodes() -> Iterator[Node]:
    for entry in _records("scontrol", "-o", "show", "node"):
        gpus, types = _gres(entry.get("Gres", ""))
        yield Node(
            name=entry["NodeName"],
            address=entry.get("NodeAddr", ""),
            partitions=frozenset(entry.get("Partitions", "").split(",")),
            cpus=int(entry.get("CPUTot", "0")),
            memory=int(entry.get("RealMemory", "0")),
            gpus=gpus,
            gpu_types=types,
        )


def _gres(text: str) -> tuple[int, frozenset[str]]:
    """Read ``gpu:a100:4(S:0-1),gpu:v100:2``: their number and types."""
    total, types = 0, set()
    for name, count in re.findall(r"gpu(?::([A-Za-z][\w.-]*))?:(\d+)", text):
        total += int(count)
        types.update([name] if name else [])
    return total, frozenset(types)


def minutes_of(text: str) -> int | None:
    """Read Slurm's time in whole minutes; None: no limit."""
    seconds = seconds_of(text)
    return None if seconds is None else seconds // 60


def _names(text: str) -> frozenset[str] | None:
    return None if text in ("ALL", "") else frozenset(text.split(","))


def _records(*command: str) -> Iterator[dict[str, str]]:
    yield from filter(None, map(read_fields, ask_slurm(*command).splitlines()))


# --- sacctmgr

_QOS = ("Name", "MaxSubmitPU", "MaxJobsPU", "MaxTRESPU", "MaxTRES")
_ASSOCIATION = ("Account", "DefaultQOS", "MaxSubmit", "MaxJobs", "MaxTRES")
DEFAULT_QOS = "normal"
"""The QOS of jobs for which neither the user nor the association names one."""


def read_rules(names: Collection[str | None], enforced: bool) -> Rules:
    """Ask sacctmgr; nothing is known where there is no accounting.

    Args:
        names: the QOS that will count: the one asked for (None: the default), the partition's.
        enforced: whether Slurm holds users to the limits.
    """
    mine = _table("assoc", _ASSOCIATION, f"user={getpass.getuser()}")
    qos_rows = _table("qos", _QOS)
    accounts = frozenset(row["Account"] for row in mine if row["Account"]) or None
    qos = frozenset(row["Name"] for row in qos_rows) or None
    if not enforced:
        return Rules(accounts, qos)
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
    )


def _gpus(limits: str) -> str:
    """Return the number of GPUs in ``cpu=40,gres/gpu=4``, as text; empty where there is none."""
    match = re.search(r"gres/gpu=(\d+)", limits)
    return match[1] if match else ""


def _least(values: Iterable[str]) -> int | None:
    return min((int(value) for value in values if value.isdigit()), default=None)


def _table(what: str, columns: tuple[str, ...], *where: str) -> list[dict[str, str]]:
    command = ("sacctmgr", "show", what, *where, f"format={','.join(columns)}", "-n", "-P")
    done = run_command(*command, seconds=20)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    rows = [line.split("|") for line in lines]
    return [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]
