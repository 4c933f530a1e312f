"""Slurm's own commands: is it here, what is in the queue, what does it say of a job.

Example::

    if slurm_is_here():
        read_queue(["1201", "1202"])       # {"1201_0": Queued(state="RUNNING", ...), ...}
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.outer_job import slurm_environment

COMMAND_MISSING = 127
"""Exit status, as a shell's, of a command that is not there or hangs."""
_NO_CONFIGURATION = ("configuration source", "slurm.conf", "config file")
_BUSY_CONTROLLER = ("Unable to contact", "timed out")
_TRIES, _PAUSE_SECONDS = 24, 5.0
"""Two minutes for a controller that does not answer."""


def slurm_is_here() -> bool:
    """Return whether this machine belongs to a Slurm cluster.

    Slurm's commands without a configuration (packages installed, no cluster) do not count; a
    cluster whose controller is silent for a moment does.
    """
    if not shutil.which("sbatch"):
        return False
    done = run_command("scontrol", "ping")
    return done.returncode == 0 or not any(text in done.stderr for text in _NO_CONFIGURATION)


def cluster_name(config: str | None = None) -> str:
    """Return the name of this machine's cluster, in small letters as Slurm has it; empty: none.

    Args:
        config: what ``scontrol show config`` has printed; None: it is asked.

    Raises:
        UsageError: Slurm does not answer.
    """
    text = ask_slurm("scontrol", "show", "config") if config is None else config
    match = re.search(r"(?m)^ClusterName\s*=\s*(\S+)", text)
    return match[1].lower() if match else ""


# --- the queue


@dataclass(frozen=True)
class Queued:
    """A task in the queue."""

    state: str
    reason: str
    time_left: str
    node: str


def read_queue(
    jobs: Collection[str] | None = None, users: Collection[int] | None = None
) -> dict[str, Queued]:
    """Return the tasks in the queue, by ``1201_0`` or ``1201``; without arguments all of the user.

    Args:
        jobs: arrays and jobs; None: all.
        users: ids of those whose jobs they are; None: this one alone. The controller is asked for
            theirs only, a busy cluster's queue is long.

    Raises:
        UsageError: Slurm does not answer.
    """
    wanted = None if jobs is None else set(jobs)
    form = "%i|%T|%r|%L|%N"
    queue = {}
    for fields in _squeue(form, "-r", users=users, is_all=wanted is not None):
        task, state, reason, left, node = fields
        if wanted is None or array_of(task) in wanted:
            queue[task] = Queued(state, reason, left, node)
    return queue


def queued_scripts(users: Collection[int] | None = None) -> dict[str, str]:
    """Return the path of the script of each job and array in the queue.

    Args:
        users: ids of those whose jobs they are; None: this one alone.

    Raises:
        UsageError: Slurm does not answer.
    """
    return {line[0]: line[1] for line in _squeue("%F|%o", users=users, is_all=True)}


def _squeue(
    form: str, *options: str, users: Collection[int] | None = None, is_all: bool = False
) -> Iterator[list[str]]:
    """Yield the fields of each line; a site's own lines have others, and are passed over.

    Args:
        form: the fields, a ``|`` between them.
        users: whose jobs; None: this process's.
        is_all: others' jobs do no harm, where Slurm can't leave them out.
    """
    ids = {os.getuid()} if users is None else set(users)
    names = [user_name(number) for number in sorted(ids)]
    everyone = None in names  # squeue refuses a number that has no name, as in containers
    whose = () if everyone else ("-u", ",".join(name for name in names if name))
    extra = "|%U" if everyone and not is_all else ""
    # -a: partitions may be hidden
    lines = ask_slurm("squeue", "-a", "-h", *options, *whose, "-o", form + extra).splitlines()
    count = form.count("|")
    for line in lines:
        fields = line.split("|", count + bool(extra))
        if len(fields) != count + 1 + bool(extra):
            continue
        if not extra or fields.pop() in map(str, ids):
            yield fields


def user_name(number: int | None = None) -> str | None:
    """Return the name of a user (this one by default); None: it has none, as in containers."""
    try:
        return pwd.getpwuid(os.getuid() if number is None else number).pw_name
    except KeyError:
        return None


# --- a task


def task_name(slurm: Mapping[str, str]) -> str:
    """Return the name of a task, from ``job_id``, ``array_job_id`` and ``array_task_id``.

    Never the job's number alone within an array: the last task's number is the array's own, and
    requeueing that requeues every task.
    """
    if slurm.get("array_job_id"):
        return f"{slurm['array_job_id']}_{slurm['array_task_id']}"
    return slurm.get("job_id", "")


def own_task_name() -> str:
    """Return this process's task, ``1201_0``, which it keeps through requeues; empty: none."""
    names = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID")
    return task_name({name.lower(): os.environ.get(f"SLURM_{name}", "") for name in names})


def array_of(task: str) -> str:
    """Return the number of a task's array, or of the plain job."""
    return task.partition("_")[0]


JOB_IS_OVER = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"}
    | {"DEADLINE", "REVOKED"}
)
"""States of a job that runs no more."""


def show_job(job: str, tries: int = _TRIES) -> dict[str, str]:
    """Return scontrol's fields of a job; asked until the controller answers (two minutes)."""
    for attempt in range(tries):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        fields = read_fields(run_command("scontrol", "-o", "show", "job", job).stdout)
        if "JobState" in fields:
            return fields
    return {}


def requeue_job(job: str, without: str = "") -> None:
    """Put the job that this process belongs to back into the queue; return if Slurm refuses.

    Slurm ends this process. It is waited for: what ends by itself would not be requeued.

    Args:
        job: its number.
        without: a node that it must not come back to.
    """
    if without:  # the requeue's SIGTERM comes before the node is excluded
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(_TRIES):
        done = run_command("scontrol", "requeue", job)
        if done.returncode == 0:
            if without:
                _exclude_node(job, without)
            sys.stdout.flush()
            time.sleep(120)
            return
        busy = any(text in done.stderr for text in _BUSY_CONTROLLER)
        if not busy and done.returncode != COMMAND_MISSING:
            print(f"scontrol requeue {job}: {done.stderr.strip()}", file=sys.stderr)
            return
        time.sleep(_PAUSE_SECONDS)


def _exclude_node(job: str, node: str) -> None:
    """Add a node to those that a pending job is kept from; a running one's can't be changed.

    Source: ``_update_job`` in Slurm's src/slurmctld/job_mgr.c (ESLURM_JOB_NOT_PENDING).
    """
    nodes = [show_job(job, tries=1).get("ExcNodeList", ""), node]
    excluded = ",".join(each for each in nodes if each not in ("", "(null)"))
    update = ("update", f"JobId={job}", f"ExcNodeList={excluded}")
    done = run_command("scontrol", *update)
    if done.returncode:
        print(f"scontrol {' '.join(update)}: {done.stderr.strip()}", file=sys.stderr)


# --- how its commands are run and read


def read_fields(line: str) -> dict[str, str]:
    """Return the fields of a line of scontrol, ``JobId=12 JobState=RUNNING``."""
    return dict(part.split("=", 1) for part in line.split() if "=" in part)


def seconds_of(text: str) -> int | None:
    """Read Slurm's time, ``1-12:00:00``, ``5:00`` (minutes and seconds); None: no limit."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts) or len(parts) > 3:
        return None
    numbers = [int(part) for part in parts]
    if not days and len(numbers) < 3:
        numbers = [0, *numbers]
    hours, minutes, seconds = [*numbers, 0, 0][:3]
    if days and not re.fullmatch(r"[0-9]{1,6}", days):
        return None
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def minutes_of(text: str) -> int | None:
    """Read Slurm's time in whole minutes; None: no limit."""
    seconds = seconds_of(text)
    return None if seconds is None else seconds // 60


def number_of(text: str) -> int | None:
    """Read a number that Slurm prints; None: it is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def ask_slurm(*command: str) -> str:
    """Return what a command prints.

    Raises:
        UsageError: it failed: nothing is known then, and no answer is not an empty one.
    """
    done = run_command(*command)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        why = lines[-1] if lines else ""
        raise UsageError(f"{' '.join(command)}: Slurm does not answer ({why})")
    return done.stdout


def run_command(
    *command: str, seconds: float = 60, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command; one that is not there or hangs has failed, with `COMMAND_MISSING`.

    Args:
        command: its words.
        seconds: how long to wait for it.
        environment: None: this process's, without what Slurm has set in it.
    """
    try:
        return subprocess.run(
            command,
            env=dict(slurm_environment() if environment is None else environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, COMMAND_MISSING, "", str(error))
