"""A sweep's trials in Slurm's queue: which job each has, and what squeue says of it.

Example::

    found = tasks(declared)
    found["gtsqtqg3"].job, found["gtsqtqg3"].queued      # "1201_0", Queued(state="RUNNING", ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm.epilog import task_name
from mlmodeldev.slurm.query import Queued, queue, scripts
from mlmodeldev.slurm.submission import jobs_of, submissions

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Task:
    """A trial's newest job."""

    job: str
    queued: Queued | None
    """None: no longer in the queue."""

    def runs(self, record: Mapping[str, Any]) -> bool:
        """Whether this is the job that a trial's record tells of."""
        return self.job == task_name(record.get("slurm") or {})


def tasks(sweep_folder: Path) -> dict[str, Task]:
    """Return the newest job of each trial that was ever submitted, by the trial's identity.

    Raises:
        UsageError: Slurm does not answer.
    """
    adopt(sweep_folder)
    jobs = jobs_of(sweep_folder)
    if not jobs:
        return {}
    known = queue({job.partition("_")[0] for job in jobs.values()})
    return {trial: Task(job, known.get(job)) for trial, job in jobs.items()}


def live_arrays(sweep_folder: Path) -> list[str]:
    """Return the numbers of the sweep's arrays that are still in the queue."""
    adopt(sweep_folder)
    numbers = [job for s in submissions(sweep_folder) for job, _ in s.arrays]
    if not numbers:
        return []
    live = {task.partition("_")[0] for task in queue(numbers)}
    return [number for number in numbers if number in live]


def workers(sweep_folder: Path) -> dict[str, Task]:
    """Return a search's workers that are still in the queue, by their names."""
    adopt(sweep_folder)
    names = [task for s in submissions(sweep_folder) for task, _ in s.tasks()]
    if not names:
        return {}
    known = queue({name.partition("_")[0] for name in names})
    return {name: Task(name, known[name]) for name in names if name in known}


def adopt(sweep_folder: Path) -> None:
    """Find the arrays in the queue whose number a killed submit had no time to note.

    Raises:
        UsageError: Slurm does not answer.
    """
    open_ended = [s for s in submissions(sweep_folder) if s.intent is not None]
    if not open_ended:
        return
    queued = scripts()
    for submission in open_ended:
        noted = {job for job, _ in submission.arrays}
        folder = f"{submission.folder}/"
        found = [job for job, path in queued.items() if path.startswith(folder)]
        for job in [job for job in found if job not in noted][:1]:
            submission.adopt(job)
