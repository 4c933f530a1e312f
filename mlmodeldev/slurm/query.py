"""Questions to Slurm: is it here, what may be asked of it, what is in the queue.

Every answer is read from Slurm's commands. What only accounting knows is left out where there is
no accounting.

Example::

    limits = ask_limits(settings.cluster)
    limits.partitions["gpu"].minutes       # the partition's time limit
    queue(["1201", "1202"])                # {"1201_0": Queued(state="RUNNING", ...), ...}
"""

from __future__ import annotations

import dataclasses
import getpass
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster


_NO_CONFIGURATION = ("configuration source", "slurm.conf", "config file")


def slurm_is_here() -> bool:
    """Whether this machine belongs to a Slurm cluster.

    Slurm's commands without a configuration (packages installed, no cluster) do not count; a
    cluster whose controller is silent for a moment does.
    """
    if not shutil.which("sbatch"):
        return False
    done = attempt("scontrol", "ping")
    return done.returncode == 0 or not any(text in done.stderr for text in _NO_CONFIGURATION)


@dataclass(frozen=True)
class Partition:
    """A partition; None: no limit, or unknown."""

    name: str
    default: bool = False
    up: bool = True
    minutes: int | None = None
    nodes: int | None = None
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


@dataclass(frozen=True)
class Queued:
    """A task in the queue."""

    state: str
    reason: str
    time_left: str
    node: str


def read_limits(cluster: Cluster) -> Limits:
    """Ask Slurm what it allows.

    Args:
        cluster: what will be asked for; its QOS and its partition's set limits.

    Raises:
        UsageError: Slurm does not answer.
    """
    config = answer("scontrol", "show", "config")
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


def queue(jobs: Collection[str] | None = None) -> dict[str, Queued]:
    """Return the tasks in the queue, by ``1201_0`` or ``1201``; without arguments all of the user.

    Raises:
        UsageError: Slurm does not answer.
    """
    mine = () if jobs is not None else ("-u", getpass.getuser())
    said = answer("squeue", "-h", "-r", *mine, "-o", "%i|%T|%r|%L|%N")
    wanted = None if jobs is None else set(jobs)
    found = {}
    for line in said.splitlines():
        task, state, reason, left, node = line.split("|", 4)
        if wanted is None or task.partition("_")[0] in wanted:
            found[task] = Queued(state, reason, left, node)
    return found


def scripts() -> dict[str, str]:
    """Return the path of the script of each job and array of the user that is in the queue.

    Raises:
        UsageError: Slurm does not answer.
    """
    said = answer("squeue", "-h", "-u", getpass.getuser(), "-o", "%F|%o")
    return dict(line.split("|", 1) for line in said.splitlines())


# --- scontrol


def _partitions() -> Iterator[Partition]:
    for entry in _records("scontrol", "-o", "show", "partition"):
        yield Partition(
            name=entry["PartitionName"],
            default=entry.get("Default") == "YES",
            up=entry.get("State", "UP") == "UP",
            minutes=minutes_of(entry.get("MaxTime", "UNLIMITED")),
            nodes=_number(entry.get("MaxNodes", "")),
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
    """Read Slurm's time, ``1-12:00:00``, ``5:00`` (minutes and seconds); None: no limit."""
    if not re.match(r"[\d]", text):
        return None
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if days:
        hours, minutes = ([*parts, 0, 0])[:2]
    elif len(parts) == 3:
        hours, minutes = parts[:2]
    else:
        hours, minutes = 0, parts[0]
    return int(days or 0) * 1440 + hours * 60 + minutes


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _names(text: str) -> frozenset[str] | None:
    return None if text in ("ALL", "") else frozenset(text.split(","))


def _records(*command: str) -> Iterator[dict[str, str]]:
    for line in answer(*command).splitlines():
        entry = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if entry:
            yield entry


def answer(*command: str) -> str:
    """Return what a command prints.

    Raises:
        UsageError: it failed: nothing is known then, and no answer is not an empty one.
    """
    done = attempt(*command)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UsageError(f"{' '.join(command)}: Slurm does not answer ({said[-1] if said else ''})")
    return done.stdout


def attempt(*command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command; one that is not there or hangs has failed, with status 127."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


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
    known = _table("qos", _QOS)
    accounts = frozenset(row["Account"] for row in mine if row["Account"]) or None
    qos = frozenset(row["Name"] for row in known) or None
    if not enforced:
        return Rules(accounts, qos)
    defaults = {row["DefaultQOS"] for row in mine} - {""} or {DEFAULT_QOS}
    wanted = {name for name in names if name} | (defaults if None in names else set())
    rows = [row for row in known if row["Name"] in wanted]
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
    found = re.search(r"gres/gpu=(\d+)", limits)
    return found[1] if found else ""


def _least(values: Iterable[str]) -> int | None:
    return min((int(value) for value in values if value.isdigit()), default=None)


def _table(what: str, columns: tuple[str, ...], *where: str) -> list[dict[str, str]]:
    command = ("sacctmgr", "show", what, *where, f"format={','.join(columns)}", "-n", "-P")
    done = attempt(*command, seconds=20)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    rows = [line.split("|") for line in lines]
    return [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]
