"""Which job runs which trial: a file for each submission, ``runs/<sweep>/.jobs/<name>/jobs.json``.

Example::

    submission = Submission.new(sweep_folder, snapshot)
    submission.add("1201", [["gtsqtqg3"], ["yb5cla4g"]])
    jobs_of(sweep_folder)                # {"gtsqtqg3": "1201_0", "yb5cla4g": "1201_1"}
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.files import write_json

FOLDER = ".jobs"


@dataclass
class Submission:
    """One call of submit.

    Attributes:
        folder: holds ``jobs.json``, submitit's files and the jobs' logs.
        snapshot: the code that the jobs run.
        arrays: for each Slurm array its number and, by index, the trials of each task.
    """

    folder: Path
    snapshot: Path
    created: float = field(default_factory=time.time)
    gpus: int = 0
    restarts_after_kill: int = 0
    arrays: list[tuple[str, list[list[str]]]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        """Where this is written."""
        return self.folder / "jobs.json"

    @classmethod
    def new(cls, sweep_folder: Path, snapshot: Path, **facts: Any) -> Submission:
        """Make the folder of a new submission."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = sweep_folder / FOLDER / f"{stamp}-{os.getpid()}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror}") from error
        return cls(folder, snapshot, **facts)

    @classmethod
    def read(cls, file: Path) -> Submission:
        """Read one back."""
        known = json.loads(file.read_text())
        arrays = [(array["job"], array["tasks"]) for array in known["arrays"]]
        facts = {key: known[key] for key in ("created", "gpus", "restarts_after_kill")}
        return cls(file.parent, Path(known["snapshot"]), arrays=arrays, **facts)

    def add(self, job: str, tasks: Sequence[Sequence[str]]) -> None:
        """Note an array that Slurm has taken; the file is replaced whole."""
        self.arrays.append((job, [list(task) for task in tasks]))
        self.save()

    def save(self) -> None:
        """Write the file."""
        arrays = [{"job": job, "tasks": tasks} for job, tasks in self.arrays]
        known = {
            "snapshot": str(self.snapshot),
            "created": self.created,
            "gpus": self.gpus,
            "restarts_after_kill": self.restarts_after_kill,
            "arrays": arrays,
        }
        write_json(self.file, known)

    def tasks(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each task as squeue names it, ``1201_0``, with its trials."""
        for job, tasks in self.arrays:
            for index, trials in enumerate(tasks):
                # submitit makes a plain job, no array, of a single task
                yield (f"{job}_{index}" if len(tasks) > 1 else job), trials


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
