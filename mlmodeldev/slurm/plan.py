"""Which trials go into which jobs, how many at once, and what it comes to.

Example::

    plan = make_plan(declared, {}, limits=ask_limits(cluster))
    plan.script, plan.gpu_hours, len(plan.tasks)
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.query import Rules
from mlmodeldev.slurm.sweep_state import ENDED
from mlmodeldev.trial.folder import owned

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm.query import Limits
    from mlmodeldev.slurm.submission import Task
    from mlmodeldev.slurm.sweep_state import SweepState, TrialEntry


@dataclass(frozen=True)
class Plan:
    """What submit would do.

    Attributes:
        entries: the declared trials.
        tasks: the trials of each job, in the order of submission.
        arrays: the jobs, cut at Slurm's MaxArraySize.
        left: trials that must wait for another submit, for the queue takes no more now.
        throttle: jobs at once.
        hours: a trial's expected hours, and
        basis: where that comes from.
        states: of the trials, as `state` tells them.
        searched: of a search: trials that its workers still draw; the jobs' lists are empty.
    """

    declared: SweepState
    tasks: list[list[TrialEntry]]
    arrays: list[list[list[TrialEntry]]]
    left: int
    throttle: int
    hours: float
    basis: str
    states: dict[str, str] = field(default_factory=dict)
    searched: int = 0

    @property
    def cluster(self) -> Cluster:
        """The settings."""
        return self.declared.base.cluster

    @property
    def trials(self) -> int:
        """Trials to run."""
        return self.searched + sum(len(task) for task in self.tasks)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all jobs; trials that share a GPU count once."""
        slots = trials_at_once(self.cluster)
        rounds = -(-self.searched // slots) + sum(-(-len(task) // slots) for task in self.tasks)
        return round(rounds * self.hours * self.cluster.gpus, 3)

    @property
    def script(self) -> str:
        """The sbatch script of the first array; the others differ in their indices."""
        sweep = self.declared.folder
        return script(self, sweep / ".jobs" / "SUBMISSION", sweep.parent / ".snapshots" / "CODE")

    def as_dict(self) -> dict[str, Any]:
        """Return what ``plan --json`` prints."""
        return {
            "trials": [
                {"id": e.trial.id, "overrides": e.trial.overrides, "state": self.states[e.trial.id]}
                for e in self.declared.entries
            ],
            "jobs": len(self.tasks),
            "arrays": [len(array) for array in self.arrays],
            "at_once": self.throttle,
            "left_for_later": self.left,
            "gpu_hours": self.gpu_hours,
            "estimate": self.basis,
            "script": self.script if self.tasks else "",
        }


def make_plan(
    declared: SweepState,
    tasks: Mapping[str, Task],
    limits: Limits | None,
    in_queue: int = 0,
    only: Collection[str] | None = None,
) -> Plan:
    """Plan the trials that are due.

    Args:
        tasks: the trials' jobs by identity; of a search: its workers that are in the queue.
        limits: what Slurm allows; None: not asked.
        in_queue: jobs of the user in the queue now.
        only: no others than these trials.

    Raises:
        UsageError: a search without a number of trials.
    """
    if declared.sweep.method == "bayes" and only is None:
        return _search_plan(declared, len(tasks), limits)
    cluster = declared.base.cluster
    states = {e.trial.id: state(e, tasks.get(e.trial.id)) for e in declared.entries}
    due = [e for e in declared.entries if is_due(e, states[e.trial.id], only)]
    jobs = _cut(due, trials_per_task(cluster))
    room = len(jobs)
    rules = limits.rules if limits else Rules()
    if rules.max_submit is not None:
        room = max(0, rules.max_submit - in_queue)
    now, later = jobs[:room], jobs[room:]
    hours, basis = estimate(declared)
    return Plan(
        declared,
        now,
        _cut(now, limits.max_array if limits else 1001),
        sum(len(task) for task in later),
        min(at_once(cluster, rules), max(1, len(now))),
        hours,
        basis,
        states,
    )


def at_once(cluster: Cluster, rules: Rules) -> int:
    """Return how many jobs may run at once, by the settings and by what accounting allows."""
    allowed = [concurrent_jobs(cluster)]
    if rules.max_jobs is not None:
        allowed.append(rules.max_jobs)
    if rules.gpus_at_once is not None and cluster.gpus:
        allowed.append(rules.gpus_at_once // cluster.gpus)
    return max(1, min(allowed))


def _search_plan(declared: SweepState, workers: int, limits: Limits | None) -> Plan:
    """Plan workers for a search.

    Args:
        workers: those in the queue already.
    """
    cluster, cap = declared.base.cluster, declared.sweep.definition.run_cap
    caps = [number for number in (declared.count, cap) if number is not None]
    if not caps:
        raise UsageError(
            f"{declared.file}: a search ends by number: give run_cap in the file, or --count"
        )
    ended = sum(entry.state in ENDED for entry in declared.entries)
    left = max(0, min(caps) - ended)
    most = at_once(cluster, limits.rules if limits else Rules())
    wanted = max(0, min(most, -(-left // trials_at_once(cluster))) - workers)
    tasks: list[list[TrialEntry]] = [[] for _ in range(wanted)]
    hours, basis = estimate(declared)
    states = {e.trial.id: e.state for e in declared.entries}
    arrays = _cut(tasks, limits.max_array if limits else 1001)
    return Plan(declared, tasks, arrays, 0, max(1, wanted), hours, basis, states, left)


def state(entry: TrialEntry, task: Task | None) -> str:
    """Return a trial's state as seen from here, where the queue is known.

    ``queued``: a job waits for it or begins with it; ``lost``: it says that it runs, but its job
    has left the queue, or no one renews its lease.

    Args:
        task: the trial's newest job, if it was ever submitted.
    """
    known = entry.state
    queued = task is not None and task.queued is not None
    if known in ENDED or entry.runs_in_wandb:
        return known
    if known == "running":
        gone = task is not None and not queued and task.runs(entry.record)
        return known if queued or (owned(entry.record) and not gone) else "lost"
    return "queued" if queued else known


def is_due(entry: TrialEntry, state: str, only: Collection[str] | None) -> bool:
    """Whether a trial is to be submitted; a failed one only if it is named (`retry`)."""
    if state in ENDED | {"queued", "running"}:
        return False
    return state != "failed" if only is None else entry.trial.id in only


def _cut(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def estimate(declared: SweepState) -> tuple[float, str]:
    """Return the hours that a trial takes, and what that is taken from."""
    ended = [e.record for e in declared.entries if e.state in ENDED]
    seconds = [float(record["seconds"]) for record in ended if record.get("seconds")]
    if seconds:
        return sum(seconds) / len(seconds) / 3600, f"the mean of {len(seconds)} ended trials"
    return declared.base.cluster.minutes / 60, "the time limit: at most"


def script(plan: Plan, folder: Path, code: Path, count: int | None = None) -> str:
    """Return the sbatch script that submitit writes.

    Args:
        folder: of the submission.
        code: the snapshot.
        count: tasks of the array; the first array's by default.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    from mlmodeldev.slurm.submit import command

    cluster = plan.cluster
    first = len(plan.arrays[0]) if plan.arrays else 1
    count = count or first
    asked = parameters(cluster, plan.declared.folder.name, plan.throttle)
    return _make_sbatch_string(
        command=command(cluster, folder, 0),
        folder=folder,
        map_count=count if count > 1 else None,
        setup=setup(cluster, code, folder / "jobs.json"),
        teardown=teardown(cluster),
        **asked,
    )


SUBMISSION_VARIABLE = "MLMODELDEV_SUBMISSION"
"""Names the file that says which trials a job runs (`mlmodeldev.slurm.submission`)."""


def python_of(cluster: Cluster) -> str:
    """Return the interpreter of the jobs."""
    return str(Path(cluster.python).expanduser()) if cluster.python else sys.executable


def concurrent_jobs(cluster: Cluster) -> int:
    """Return how many jobs may run at once, by ``max_jobs`` and ``max_gpus``; 0: not even one."""
    if not cluster.gpus:
        return cluster.max_jobs
    return min(cluster.max_jobs, cluster.max_gpus // cluster.gpus)


def trials_at_once(cluster: Cluster) -> int:
    """Return how many trials a job runs at once."""
    if cluster.trials_per_gpu == 1:
        return 1  # a trial has all GPUs of its job
    return cluster.trials_per_gpu * max(1, cluster.gpus)


def trials_per_task(cluster: Cluster) -> int:
    """Return how many trials a job runs in all."""
    return max(cluster.trials_per_job, trials_at_once(cluster))


def parameters(cluster: Cluster, name: str, throttle: int) -> dict[str, Any]:
    """Return submitit's parameters of an array.

    Args:
        name: of the jobs.
        throttle: array tasks at once.
    """
    asked: dict[str, Any] = {
        "job_name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "time": cluster.minutes,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "mem": None if cluster.mem_gb is None else f"{round(cluster.mem_gb * 1024)}M",
        **_gpus(cluster),
        "signal_delay_s": cluster.warn_seconds,
        "array_parallelism": throttle,
        "stderr_to_stdout": True,
        # From Slurm 22.05 on srun no longer inherits the job's --cpus-per-task.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_task}"],
        "additional_parameters": {"requeue": True, **cluster.sbatch},
    }
    return {key: value for key, value in asked.items() if value is not None}


def _gpus(cluster: Cluster) -> dict[str, Any]:
    each = cluster.tasks_per_node * cluster.gpus_per_task
    if not each:
        return {}
    if cluster.gpu_type:
        return {"gres": f"gpu:{cluster.gpu_type}:{each}"}
    return {"gpus_per_node": each}


def setup(cluster: Cluster, snapshot: Path, submission: Path) -> list[str]:
    """Return the shell lines before the trials.

    The shell outlives the signals that its trials get, to say afterwards what becomes of the job.
    """
    return [
        "trap : USR1 USR2 TERM",
        *cluster.setup,
        f"export PYTHONPATH={shlex.quote(str(snapshot))} PYTHONSAFEPATH=1",
        f"export {SUBMISSION_VARIABLE}={shlex.quote(str(submission))}",
    ]


def teardown(cluster: Cluster) -> list[str]:
    """Return the shell lines after the trials."""
    return [f'exec {shlex.quote(python_of(cluster))} -m mlmodeldev.slurm.epilog "$?"']
