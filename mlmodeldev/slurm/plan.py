"""Which trials go into which jobs, how many at once, and what it comes to.

Example::

    plan = make_plan(sweep_state, {}, limits=read_limits(cluster))
    plan.script, plan.gpu_hours, len(plan.tasks)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.lease import owned
from mlmodeldev.slurm.limits import Limits
from mlmodeldev.slurm.script import batch_script
from mlmodeldev.slurm.share import with_share
from mlmodeldev.slurm.trial_entries import ENDED

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm.accounting import Rules
    from mlmodeldev.slurm.submission import TrialJob
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.slurm.trial_entries import TrialEntry


@dataclass(frozen=True)
class Plan:
    """What submit would do.

    Attributes:
        sweep_state: the sweep and its trials.
        tasks: the trials of each job, in the order of submission.
        arrays: the jobs, cut at Slurm's MaxArraySize.
        left: trials that must wait for another submit, for the queue takes no more now.
        throttle: jobs at once.
        hours: a trial's expected hours, and
        basis: where that comes from.
        states: of the trials, in their order, as `state` tells them.
        searched: of a search: trials that its workers still draw; the jobs' lists are empty.
        resources: the cluster's settings, with numbers where those say ``auto``, and with the
            partition and other choices that are the user's variables'.
    """

    sweep_state: SweepState
    tasks: Sequence[Sequence[TrialEntry]]
    arrays: Sequence[Sequence[Sequence[TrialEntry]]]
    left: int
    throttle: int
    hours: float
    basis: str
    states: Sequence[str] = ()
    searched: int = 0
    resources: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        """What a job asks for."""
        return self.resources or with_share(self.sweep_state.base.cluster, None)

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
        folder = self.sweep_state.folder
        submission, snapshot = folder / ".jobs/SUBMISSION", folder.parent / ".snapshots/CODE"
        count = len(self.arrays[0]) if self.arrays else 1
        return batch_script(self.cluster, folder.name, submission, snapshot, count, self.throttle)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``submit --json`` prints."""
        return {"trials": list(self.trial_rows()), **self.totals()}

    def trial_rows(self) -> Iterator[dict[str, Any]]:
        """Yield what is shown of each trial."""
        for entry, state in zip(self.sweep_state.entries, self.states, strict=True):
            yield {"id": entry.trial.id, "overrides": entry.trial.overrides, "state": state}

    def totals(self) -> dict[str, Any]:
        """Return what is shown of all trials together."""
        return {
            "jobs": len(self.tasks),
            "arrays": [len(array) for array in self.arrays],
            "at_once": self.throttle,
            "left_for_later": self.left,
            "gpu_hours": self.gpu_hours,
            "estimate": self.basis,
            "script": self.script if self.tasks else "",
        }


def make_plan(
    sweep_state: SweepState,
    jobs: Mapping[str, TrialJob],
    limits: Limits | None,
    in_queue: int = 0,
    only: Collection[str] | None = None,
) -> Plan:
    """Plan the trials that are due.

    Args:
        jobs: the trials' jobs by identity; of a search: its workers that are in the queue.
        limits: what Slurm allows; None: not asked.
        in_queue: jobs of the user in the queue now.
        only: no others than these trials.

    Raises:
        UsageError: a search without a number of trials.
    """
    resources = with_share(sweep_state.base.cluster, limits)
    limits = limits or Limits()
    if sweep_state.is_search and only is None:
        return _search_plan(sweep_state, len(jobs), limits, resources)
    cluster, rules = sweep_state.base.cluster, limits.rules
    states = [state(e, jobs.get(e.trial.id) if jobs else None) for e in sweep_state.entries]
    pairs = zip(sweep_state.entries, states, strict=True)
    due = [entry for entry, each in pairs if is_due(entry, each, only)]
    tasks = _Parts(due, trials_per_task(cluster))
    room = len(tasks)
    if rules.max_submit is not None:
        room = max(0, rules.max_submit - in_queue)
    now = tasks[:room]
    left = len(due) - sum(map(len, now)) if room < len(tasks) else 0
    throttle = min(at_once(cluster, rules), max(1, len(now)))
    arrays = _Parts(now, limits.max_array)
    hours, basis = estimate(sweep_state)
    return Plan(sweep_state, now, arrays, left, throttle, hours, basis, states, resources=resources)


def _search_plan(sweep_state: SweepState, workers: int, limits: Limits, resources: Cluster) -> Plan:
    """Plan workers for a search.

    Args:
        workers: those in the queue already.
    """
    cluster, cap = sweep_state.base.cluster, sweep_state.sweep.definition.run_cap
    caps = [number for number in (sweep_state.count, cap) if number is not None]
    if not caps:
        raise UsageError(
            f"{sweep_state.file}: a search ends by number: give run_cap in the file, or --count"
        )
    ended = sum(entry.state in ENDED for entry in sweep_state.entries)
    left = max(0, min(caps) - ended)
    most = at_once(cluster, limits.rules)
    wanted = max(0, min(most, -(-left // trials_at_once(cluster))) - workers)
    tasks: list[list[TrialEntry]] = [[] for _ in range(wanted)]
    arrays, throttle = _Parts(tasks, limits.max_array), max(1, wanted)
    states = [e.state for e in sweep_state.entries]
    hours, basis = estimate(sweep_state)
    return Plan(
        sweep_state, tasks, arrays, 0, throttle, hours, basis, states, left, resources=resources
    )


class _Parts(Sequence[Any]):
    """A sequence in parts of one size, each made when it is asked for: there may be a million."""

    def __init__(self, items: Sequence[Any], size: int) -> None:
        self.items, self.size = items, size

    def __len__(self) -> int:
        return (len(self.items) + self.size - 1) // self.size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            return _Parts(self.items[start * self.size : stop * self.size], self.size)
        start = range(len(self))[index] * self.size
        return self.items[start : start + self.size]


# --- a trial


def state(entry: TrialEntry, job: TrialJob | None) -> str:
    """Return a trial's state as seen from here, where the queue is known.

    ``queued``: a job waits for it or begins with it; ``lost``: it says that it runs, but its job
    has left the queue, or no one renews its lease.

    Args:
        job: the trial's newest, if it was ever submitted.
    """
    recorded = entry.state
    queued = job is not None and job.queued is not None
    if recorded in ENDED or entry.runs_in_wandb:
        return recorded
    if recorded == "running":
        gone = job is not None and not queued and job.runs(entry.record)
        # a node that can't let a job go keeps it in the queue, though its trial is dead
        leaves = queued and job is not None and job.is_leaving
        alive = owned(entry.record) and not gone
        return recorded if (queued and not leaves) or alive else "lost"
    if job is not None and job.is_given_up and not queued:
        return "failed"
    return "queued" if queued else recorded


def is_due(entry: TrialEntry, state: str, only: Collection[str] | None) -> bool:
    """Return whether a trial is to be submitted; a failed one only if it is named (`retry`)."""
    if state in ENDED | {"queued", "running"}:
        return False
    return state != "failed" if only is None else entry.trial.id in only


def estimate(sweep_state: SweepState) -> tuple[float, str]:
    """Return the hours that a trial takes, and what that is taken from."""
    ended = [e.record for e in sweep_state.entries if e.state in ENDED]
    seconds = [float(record["seconds"]) for record in ended if record.get("seconds")]
    if seconds:
        return sum(seconds) / len(seconds) / 3600, f"the mean of {len(seconds)} ended trials"
    return sweep_state.base.cluster.minutes / 60, "the time limit: at most"


# --- how many


def at_once(cluster: Cluster, rules: Rules) -> int:
    """Return how many jobs may run at once, by the settings and by what accounting allows."""
    allowed = [concurrent_jobs(cluster)]
    if rules.max_jobs is not None:
        allowed.append(rules.max_jobs)
    if rules.gpus_at_once is not None and cluster.gpus:
        allowed.append(rules.gpus_at_once // cluster.gpus)
    return max(1, min(allowed))


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
