"""Which trials go into which jobs, how many at once, and what it comes to.

Example::

    plan = make_plan(declared, queued={}, limits=ask_limits())
    plan.script, plan.gpu_hours, len(plan.tasks)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm import resources
from mlmodeldev.slurm.reconcile import ENDED
from mlmodeldev.trial.record import owned

if TYPE_CHECKING:
    from pathlib import Path

    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm.ask import Limits
    from mlmodeldev.slurm.declared import Declared
    from mlmodeldev.slurm.reconcile import Entry


@dataclass(frozen=True)
class Plan:
    """What submit would do.

    Attributes:
        entries: the declared trials.
        tasks: the trials of each job, in the order of submission.
        arrays: the jobs, cut at Slurm's MaxArraySize.
        left: trials that must wait for another submit, for the queue takes no more now.
        throttle: jobs at once.
        hours: a trial's expected hours, and where that comes from.
    """

    declared: Declared
    tasks: list[list[Entry]]
    arrays: list[list[list[Entry]]]
    left: int
    throttle: int
    hours: float
    basis: str
    states: dict[str, str] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        """The settings."""
        return self.declared.base.cluster

    @property
    def trials(self) -> int:
        """Trials to run."""
        return sum(len(task) for task in self.tasks)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all jobs; trials that share a GPU count once."""
        rounds = sum(-(-len(task) // resources.slots(self.cluster)) for task in self.tasks)
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
    declared: Declared,
    queued: Collection[str],
    limits: Limits | None,
    in_queue: int = 0,
    only: Collection[str] | None = None,
) -> Plan:
    """Plan the trials that are due.

    Args:
        queued: trials that are in the queue already.
        limits: what Slurm allows; None: not asked.
        in_queue: jobs of the user in the queue now.
        only: no others than these trials.
    """
    cluster = declared.base.cluster
    states = {e.trial.id: state(e, e.trial.id in queued) for e in declared.entries}
    due = [e for e in declared.entries if is_due(e, states[e.trial.id], only)]
    tasks = _cut(due, resources.trials_per_task(cluster))
    room = len(tasks)
    if limits and limits.max_submit is not None:
        room = max(0, limits.max_submit - in_queue)
    now, later = tasks[:room], tasks[room:]
    hours, basis = estimate(declared)
    return Plan(
        declared,
        now,
        _cut(now, limits.max_array if limits else 1001),
        sum(len(task) for task in later),
        min(resources.concurrent_jobs(cluster), max(1, len(now))),
        hours,
        basis,
        states,
    )


def state(entry: Entry, queued: bool) -> str:
    """Return a trial's state as seen from here, where the queue is known.

    ``queued``: a job waits for it or is at it; ``lost``: it says that it runs, but no one runs it.
    """
    known = entry.state
    if known in ENDED or (known == "running" and (queued or owned(entry.record))):
        return known
    if queued:
        return "queued"
    return "lost" if known == "running" else known


def is_due(entry: Entry, state: str, only: Collection[str] | None) -> bool:
    """Whether a trial is to be submitted."""
    return state not in ENDED | {"queued", "running"} and (only is None or entry.trial.id in only)


def _cut(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def estimate(declared: Declared) -> tuple[float, str]:
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

    cluster = plan.cluster
    first = len(plan.arrays[0]) if plan.arrays else 1
    count = count or first
    asked = resources.parameters(cluster, plan.declared.folder.name, plan.throttle)
    command = f"{resources.python_of(cluster)} -u -m submitit.core._submit {folder}"
    return _make_sbatch_string(
        command=command,
        folder=folder,
        map_count=count if count > 1 else None,
        setup=resources.setup(cluster, code, folder / "jobs.json"),
        teardown=resources.teardown(cluster),
        **asked,
    )
