"""What accounting allows this user, as sacctmgr tells it, in the order in which Slurm looks.

A limit that is set in several places counts where Slurm finds it first: at the partition's QOS,
the job's QOS (the other way round with its flag OverPartQOS), the user's association, which has
what its accounts hand down. Where it is not certain which of several will count, the widest is
taken: a job that waits is less harm than a right one that is refused.

Example::

    read_rules({"gpu": "gpu-limits"}, "mycluster", account=None, qos="long", enforced=True)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlmodeldev.slurm.query import minutes_of, number_of, run_command, user_name

Row = Mapping[str, str]
"""What sacctmgr prints of a QOS or an association, by column; empty: not set there."""


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
        over_partition_time: whether the job's QOS lets it exceed the partition's time limit.
    """

    accounts: frozenset[str] | None = None
    qos: frozenset[str] | None = None
    max_submit: int | None = None
    max_jobs: int | None = None
    gpus_at_once: int | None = None
    gpus_per_job: int | None = None
    minutes: int | None = None
    over_partition_time: bool = False


_QOS = (
    *("Name", "Flags", "MaxSubmitPU", "MaxSubmitPA", "MaxJobsPU", "MaxJobsPA"),
    *("MaxTRESPU", "MaxTRES", "MaxWall"),
)
_FACTOR = "LimitFactor"
"""Multiplies the association's limits; Slurm before 21.08 has none, and refuses to show it."""
_ASSOCIATION = (
    *("Account", "Partition", "DefaultQOS", "QOS"),
    *("MaxSubmit", "MaxJobs", "MaxTRES", "MaxWall"),
)
DEFAULT_QOS = "normal"
"""The QOS of jobs for which neither the user nor the association names one."""


def read_rules(
    partitions: Mapping[str, str],
    cluster: str,
    *,
    account: str | None = None,
    qos: str | None = None,
    enforced: bool = True,
) -> Rules:
    """Ask sacctmgr; nothing is known where there is no accounting.

    Args:
        partitions: those that may take a job, each with its own QOS (empty: none).
        cluster: the name of this machine's; accounting may serve several. Empty: not known.
        account: that is charged; None: the user's default.
        qos: of the job; None: the account's default.
        enforced: whether Slurm holds users to the limits.
    """
    user = user_name()
    where = [f"user={user}", *([f"cluster={cluster}"] if cluster else [])]
    mine = _table("assoc", _ASSOCIATION, *where) if user else []
    qos_table = _table("qos", (*_QOS, _FACTOR)) or _table("qos", _QOS)
    qos_rows = {row["Name"].lower(): row for row in qos_table}
    accounts = frozenset(row["Account"] for row in mine if row["Account"])
    if account is None and len(accounts) > 1:
        account = next((r["Account"] for r in _table("assoc", ("Account",), *where, _DEFAULT)), "")
    if account:
        mine = [row for row in mine if row["Account"] == account.lower()]
    each = [
        _rules(association, own.lower(), (qos or _default_qos(association)).lower(), qos_rows)
        for name, own in (partitions or {"": ""}).items()
        for association in _associations(mine, name)
    ]
    names = frozenset(row["Name"] for row in qos_table)
    return _widest(each, accounts or None, names or None, enforced)


_DEFAULT = "onlydefaults"
"""Makes sacctmgr show the association of the user's default account alone."""


def _associations(mine: Sequence[Row], partition: str) -> Iterator[Row]:
    """Yield what Slurm goes by in a partition: for each account that of the partition, if any."""
    bound = {row["Account"] for row in mine if partition and row["Partition"] == partition}
    for row in mine:
        if row["Partition"] == (partition if row["Account"] in bound else ""):
            yield row


def _default_qos(association: Row) -> str:
    allowed = association["QOS"].split(",")
    return association["DefaultQOS"] or (allowed[0] if len(allowed) == 1 else "") or DEFAULT_QOS


def _rules(association: Row, own: str, qos: str, qos_rows: Mapping[str, Row]) -> Rules:
    """Return what holds for a job of one account in one partition.

    Args:
        own: the partition's QOS; empty: it has none.
        qos: the job's.
        qos_rows: all of them; of one that is not there nothing is known, nor of what comes after.
    """
    names = [name for name in (own, qos) if name]
    if not all(name in qos_rows for name in names):
        return Rules()
    rows = [qos_rows[name] for name in names]
    flags = rows[-1]["Flags"].split(",")
    if "OverPartQOS" in flags:
        rows.reverse()
    # what is a share of something, or multiplied, is no number of GPUs
    scaled = any(row.get(_FACTOR) or "Relative" in row["Flags"].split(",") for row in rows)
    scaled_time = "UsageFactorSafe" in flags
    return Rules(
        max_submit=_jobs(rows, association, "MaxSubmit"),
        max_jobs=_jobs(rows, association, "MaxJobs"),
        gpus_at_once=None if scaled else _first(rows, "MaxTRESPU", _gpus),
        gpus_per_job=None if scaled else _first([*rows, association], "MaxTRES", _gpus),
        minutes=None if scaled_time else _first([*rows, association], "MaxWall", minutes_of),
        over_partition_time="PartitionTimeLimit" in flags,
    )


def _jobs(rows: Sequence[Row], association: Row, limit: str) -> int | None:
    """Return a limit of jobs: a QOS has one by user, one by account, before the association's."""
    each = [_first(rows, f"{limit}{of}", number_of) for of in ("PU", "PA")]
    least = min((number for number in each if number is not None), default=None)
    return number_of(association[limit]) if least is None else least


def _widest(
    each: Sequence[Rules],
    accounts: frozenset[str] | None,
    qos: frozenset[str] | None,
    enforced: bool,
) -> Rules:
    """Return of each limit the one that allows most; of none, and where none is enforced, None."""

    def most(limits: Sequence[int | None]) -> int | None:
        numbers = [number for number in limits if number is not None]
        return max(numbers) if enforced and numbers and len(numbers) == len(limits) else None

    return Rules(
        accounts,
        qos,
        max_submit=most([rules.max_submit for rules in each]),
        max_jobs=most([rules.max_jobs for rules in each]),
        gpus_at_once=most([rules.gpus_at_once for rules in each]),
        gpus_per_job=most([rules.gpus_per_job for rules in each]),
        minutes=most([rules.minutes for rules in each]),
        over_partition_time=any(rules.over_partition_time for rules in each),
    )


def _first(rows: Iterable[Row], column: str, read: Callable[[str], int | None]) -> int | None:
    """Return a limit where it is first set."""
    return next((number for row in rows if (number := read(row[column])) is not None), None)


def _gpus(limits: str) -> int | None:
    """Return the number of GPUs in ``cpu=40,gres/gpu=4``."""
    match = re.search(r"gres/gpu=([0-9]{1,18})\b", limits)
    return int(match[1]) if match else None


def _table(what: str, columns: Sequence[str], *where: str) -> list[dict[str, str]]:
    command = ("sacctmgr", "show", what, *where, f"format={','.join(columns)}", "-n", "-P")
    done = run_command(*command, seconds=20)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    rows = [line.split("|") for line in lines]
    return [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]
