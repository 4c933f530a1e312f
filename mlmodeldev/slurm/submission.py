"""Which job runs which trial: a file for each submission, ``runs/<sweep>/.jobs/<name>/jobs.json``.

Example::

    submission = Submission.new(sweep_folder, snapshot)
    submission.intend([["gtsqtqg3"], ["yb5cla4g"]])      # before sbatch
    submission.add("1201", [["gtsqtqg3"], ["yb5cla4g"]]) # after it
    jobs_of(sweep_folder)                # {"gtsqtqg3": "1201_0", "yb5cla4g": "1201_1"}
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import write_json, write_text
from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.epilog import task_name
from mlmodeldev.slurm.query import Queued, queue, scripts

FOLDER = ".jobs"
SWEEP_COPY = "sweep.yaml"
"""The sweep file as it was submitted."""

Tasks = list[list[str]]
"""The trials of each task of an array, by its index."""

_FACTS = ("created", "gpus", "restarts_after_kill", "overrides", "count", "seed")


@dataclass
class Submission:
    """One call of submit.

    Attributes:
        folder: holds ``jobs.json``, submitit's files and the jobs' logs.
        snapshot: the code that the jobs run.
        overrides, count, seed: what was asked for, for `retry`.
        arrays: for each Slurm array its number and, by index, the trials of each task.
        intent: the tasks of an array that is being submitted, or was when the command was killed.
    """

    folder: Path
    snapshot: Path
    created: float = field(default_factory=time.time)
    gpus: int = 0
    restarts_after_kill: int = 0
    overrides: list[str] = field(default_factory=list)
    count: int | None = None
    seed: int = 0
    arrays: list[tuple[str, Tasks]] = field(default_factory=list)
    intent: Tasks | None = None

    @property
    def file(self) -> Path:
        """Where this is written."""
        return self.folder / "jobs.json"

    @property
    def sweep_file(self) -> Path:
        """The copy of the sweep file."""
        return self.folder / SWEEP_COPY

    @classmethod
    def new(cls, sweep_folder: Path, snapshot: Path, **facts: Any) -> Submission:
        """Make the folder of a new submission."""
        parent, stamp = sweep_folder / FOLDER, time.strftime("%Y%m%d-%H%M%S-")
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=stamp, dir=parent))
            folder.chmod(parent.stat().st_mode)
        except OSError as error:
            raise UsageError(f"{parent}: {error.strerror}") from error
        return cls(folder, snapshot, **facts)

    @classmethod
    def read(cls, file: Path) -> Submission:
        """Read one back; an array whose number only its jobs have noted is among the others."""
        known = json.loads(file.read_text())
        arrays = [(array["job"], array["tasks"]) for array in known["arrays"]]
        facts = {key: known[key] for key in _FACTS if key in known}
        found = cls(file.parent, Path(known["snapshot"]), arrays=arrays, **facts)
        found.intent = known.get("intent")
        note = job_note(file.parent, len(arrays))
        if found.intent is not None and note.is_file() and (job := note.read_text().strip()):
            found.reattach(job)
        return found

    def intend(self, tasks: Sequence[Sequence[str]] | None) -> None:
        """Note what is about to be submitted; None: it was not."""
        self.intent = None if tasks is None else [list(task) for task in tasks]
        self.save()

    def add(self, job: str, tasks: Sequence[Sequence[str]]) -> None:
        """Note an array that Slurm has taken; the file is replaced whole."""
        self.arrays.append((job, [list(task) for task in tasks]))
        self.intent = None
        self.save()

    def reattach(self, job: str) -> None:
        """Take an array as ours that was submitted, and whose number was not noted.

        The file of a submission belongs to the command that made it: the number goes beside it.
        """
        assert self.intent is not None
        note = job_note(self.folder, len(self.arrays))
        if not note.exists():
            write_text(note, job)
        self.arrays.append((job, self.intent))
        self.intent = None

    def save(self) -> None:
        """Write the file."""
        arrays = [{"job": job, "tasks": tasks} for job, tasks in self.arrays]
        facts = {key: getattr(self, key) for key in _FACTS}
        known = {"snapshot": str(self.snapshot), **facts, "arrays": arrays, "intent": self.intent}
        write_json(self.file, known)

    def tasks(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each task as squeue names it, ``1201_0``, with its trials."""
        for job, tasks in self.arrays:
            for index, trials in enumerate(tasks):
                # a single task is submitted as a plain job, no array
                yield (f"{job}_{index}" if len(tasks) > 1 else job), trials


def job_note(folder: Path, number: int) -> Path:
    """Return the file in which an array's jobs write its number down.

    Args:
        folder: of the submission.
        number: of the array in it, from 0.
    """
    return folder / f"tasks-{number}.job"


def submissions(sweep_folder: Path) -> list[Submission]:
    """Return a sweep's submissions, oldest first."""
    found = []
    for file in sorted((sweep_folder / FOLDER).glob("*/jobs.json")):
        try:
            found.append(Submission.read(file))
        except (OSError, ValueError, KeyError):
            continue  # being removed, or not ours
    return sorted(found, key=lambda submission: submission.created)


def jobs_of(sweep_folder: Path) -> dict[str, str]:
    """Return the newest job of each trial, by the trial's identity."""
    return {
        trial: task
        for submission in submissions(sweep_folder)
        for task, trials in submission.tasks()
        for trial in trials
    }


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
    reattach(sweep_folder)
    jobs = jobs_of(sweep_folder)
    if not jobs:
        return {}
    known = queue({job.partition("_")[0] for job in jobs.values()})
    return {trial: Task(job, known.get(job)) for trial, job in jobs.items()}


def live_arrays(sweep_folder: Path) -> list[str]:
    """Return the numbers of the sweep's arrays that are still in the queue."""
    reattach(sweep_folder)
    numbers = [job for s in submissions(sweep_folder) for job, _ in s.arrays]
    if not numbers:
        return []
    live = {task.partition("_")[0] for task in queue(numbers)}
    return [number for number in numbers if number in live]


def workers(sweep_folder: Path) -> dict[str, Task]:
    """Return a search's workers that are still in the queue, by their names."""
    reattach(sweep_folder)
    names = [task for s in submissions(sweep_folder) for task, _ in s.tasks()]
    if not names:
        return {}
    known = queue({name.partition("_")[0] for name in names})
    return {name: Task(name, known[name]) for name in names if name in known}


def reattach(sweep_folder: Path) -> None:
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
            submission.reattach(job)
