"""How jobs ended that the queue has no more: state, exit code and memory, as Slurm tells them.

Accounting is asked, and the controller, which remembers a job for some minutes; where neither
tells, there is the job's log.

Example::

    ends = read_job_ends(["1201_0", "1201_1"])
    ends["1201_0"].state, ends["1201_0"].sentence("1201_0", 2.0)
    # ("OUT_OF_MEMORY", "job 1201_0 OUT_OF_MEMORY: asked for 2 GiB, used 1.9; try cluster.mem_gb=3")
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mlmodeldev.slurm.query import JOB_IS_OVER, run_command, show_job

MAX_COUNTED = 200
"""Jobs that accounting is asked about at once."""
MAX_SHOWN = 50
"""And the controller, one by one, of those that accounting does not know."""
_NO_FAULT = frozenset({"COMPLETED", "CANCELLED", "PREEMPTED", "REVOKED"})
_FIELDS = ("JobID", "State", "ExitCode", "ReqMem", "MaxRSS")
_UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40, "P": 2.0**50}


@dataclass(frozen=True)
class JobEnd:
    """How a job ended.

    Attributes:
        state: Slurm's word, such as BOOT_FAIL.
        exit_code: ``1:0``: of the script, and the signal that ended it; empty: not told.
        requested, used: memory on a node in GiB, the most of any step; 0: not told.
    """

    state: str
    exit_code: str = ""
    requested: float = 0.0
    used: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the job runs no more."""
        return self.state in JOB_IS_OVER

    @property
    def is_failure(self) -> bool:
        """Whether it ended by itself, or by the cluster's fault: nobody has cancelled it."""
        return self.is_over and self.state not in _NO_FAULT

    def sentence(self, job: str) -> str:
        """Return in a few words how a job ended, and what to do about a lack of memory."""
        code = f" (exit {self.exit_code})" if self.exit_code not in ("", "0:0") else ""
        if self.state != "OUT_OF_MEMORY":
            return f"job {job} {self.state}{code}"
        parts = [f"asked for {self.requested:.3g} GiB"] if self.requested else []
        parts += [f"used {self.used:.3g} GiB when last looked at"] if self.used else []
        memory = ", ".join(parts) or "its memory is not told"
        return f"job {job} {self.state}: {memory}; try {self._advice()}"

    def _advice(self) -> str:
        """Ask for half as much again as was not enough, whole GiB."""
        least = max(self.requested, self.used)
        return f"cluster.mem_gb={math.ceil(least * 1.5)}" if least else "a larger cluster.mem_gb"


def read_job_ends(jobs: Collection[str]) -> dict[str, JobEnd]:
    """Return how these jobs ended, as far as Slurm tells.

    Args:
        jobs: jobs and array tasks, ``1201_0``; the first `MAX_COUNTED` of them.
    """
    wanted = list(dict.fromkeys(jobs))[:MAX_COUNTED]
    ends = _from_accounting(wanted) if wanted else {}
    for job in wanted[:MAX_SHOWN]:
        if job not in ends and (fields := show_job(job, tries=1)):
            ends[job] = JobEnd(fields["JobState"], fields.get("ExitCode", ""))
    return {job: end for job, end in ends.items() if end.is_over}


def read_job_memory(jobs: Collection[str]) -> dict[str, JobEnd]:
    """Return what accounting tells of jobs that ended, as `read_job_ends`; no other is asked."""
    wanted = list(dict.fromkeys(jobs))[:MAX_COUNTED]
    return _from_accounting(wanted) if wanted else {}


def _from_accounting(jobs: Iterable[str]) -> dict[str, JobEnd]:
    words = ("-n", "-P", "-j", ",".join(jobs), "-o", ",".join(_FIELDS))
    done = run_command("sacct", *words, seconds=30)
    if done.returncode:
        return {}
    return read_accounting(done.stdout, set(jobs))


def read_accounting(text: str, jobs: Collection[str]) -> dict[str, JobEnd]:
    """Read sacct's rows: one for each job, and one for each of its steps, ``1201_0.batch``.

    >>> read_accounting("12|OUT_OF_MEMORY|0:125|2G|\\n12.0|OUT_OF_MEMORY|0:125||1992294K", ["12"])
    {'12': JobEnd(state='OUT_OF_MEMORY', exit_code='0:125', requested=2.0, used=1.9)}
    """
    ends: dict[str, JobEnd] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) < 5:
            continue
        job, _, step = fields[0].partition(".")
        if job not in jobs:
            continue
        before = ends.get(job, JobEnd(""))
        word = next(iter(fields[1].split()), "")  # "CANCELLED by 0"
        state = before.state if step else word.rstrip("+")
        code = before.exit_code if step else fields[2]
        requested = max(before.requested, _gib(fields[3].rstrip("nc")))
        ends[job] = JobEnd(state, code, requested, max(before.used, _gib(fields[4])))
    return ends


def _gib(text: str) -> float:
    """Read Slurm's ``1992294K``."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]*)?)([KMGTP]?)", text.strip())
    return round(float(match[1]) * _UNITS[match[2]] / 2**30, 2) if match else 0.0
