"""What only accounting knows: the user's accounts, the QOS, and the limits that these set.

Example::

    rules = ask_rules(["normal", "gpu-partition"])
    rules.max_submit, rules.gpus_at_once        # None: no limit, or unknown
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mlmodeldev.slurm.shell import attempt

_QOS = ("Name", "MaxSubmitPU", "MaxJobsPU", "MaxTRESPU", "MaxTRES")
_ASSOCIATION = ("Account", "DefaultQOS", "MaxSubmit", "MaxJobs", "MaxTRES")
DEFAULT_QOS = "normal"
"""The QOS of jobs for which neither the user nor the association names one."""


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


def ask_rules(names: Collection[str | None], enforced: bool) -> Rules:
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
