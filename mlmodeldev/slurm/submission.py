"""Which job runs which trial: a file for each submission, ``runs/<sweep>/.jobs/<name>/jobs.json``.

Example::

    submission = Submission.new(sweep_folder, snapshot)
    submission.intend([["gtsqtqg3"], ["yb5cla4g"]])      # before sbatch
    submission.add("1201", [["gtsqtqg3"], ["yb5cla4g"]]) # after it
    jobs_of(sweep_folder)                # {"gtsqtqg3": "1201_0", "yb5cla4g": "1201_1"}
    trial_jobs(sweep_folder)             # the same, with what the queue says of them
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import write_text
from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.query import Queued, array_of, queued_scripts, read_queue, task_name
from mlmodeldev.synced import make_synced, sync_folder
from mlmodeldev.trial.record_types import MOST_SECONDS

FOLDER = ".jobs"
SWEEP_COPY = "sweep.yaml"
"""The sweep file as it was submitted."""

Tasks = list[list[str]]
"""The trials of each task of an array, by its index."""

_OPTIONS: dict[str, Any] = {
    "created": int | float,
    "gpus": int,
    "restarts_after_kill": int,
    "overrides": list,
    "count": int | None,
    "seed": int,
}


@dataclass
class Submission:
    """One call of submit.

    Attributes:
        folder: holds ``jobs.json``, submitit's files and the jobs' logs.
        snapshot: the code that the jobs run.
        created: when, in seconds since 1970; later than those of the sweep before it, whatever the
            clocks of the machines that made them say.
        overrides, count, seed: what was asked for, for `retry`.
        arrays: for each Slurm array its number and, by index, the trials of each task.
        intent: the tasks of an array that is being submitted, or was when the command was killed.
        taken: whether sbatch has taken the intent, and did not say under which number.
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
    taken: bool = False

    @property
    def file(self) -> Path:
        """Where this is written."""
        return self.folder / "jobs.json"

    @property
    def sweep_file(self) -> Path:
        """The copy of the sweep file."""
        return self.folder / SWEEP_COPY

    @property
    def sweep_folder(self) -> Path:
        """The sweep's folder, which holds its trials' folders."""
        return self.folder.parents[1]

    @classmethod
    def new(cls, sweep_folder: Path, snapshot: Path, **options: Any) -> Submission:
        """Make the folder of a new submission."""
        parent, stamp = sweep_folder / FOLDER, time.strftime("%Y%m%d-%H%M%S-")
        try:
            make_synced(parent)
            folder = Path(tempfile.mkdtemp(prefix=stamp, dir=parent))
            folder.chmod(parent.stat().st_mode)
            sync_folder(parent)
        except OSError as error:
            raise UsageError(
                f"{parent}: {error.strerror}; artefacts.runs_dir=DIR names another place"
            ) from error
        before = max((made.created for made in submissions(sweep_folder)), default=0.0)
        return cls(folder, snapshot, created=max(time.time(), before + 0.001), **options)

    @classmethod
    def read(cls, file: Path) -> Submission:
        """Read one back; an array whose number only its jobs have noted is among the others.

        Raises:
            ValueError: it is none.
        """
        content = _content(file)
        arrays = [(array["job"], array["tasks"]) for array in content["arrays"]]
        options = {key: content[key] for key in _OPTIONS if key in content}
        submission = cls(file.parent, Path(content["snapshot"]), arrays=arrays, **options)
        submission.intent = content.get("intent")
        submission.taken = bool(content.get("taken"))
        note = job_note(file.parent, len(arrays))
        if submission.intent is not None and (job := _noted(note)):
            submission.reattach(job)
        return submission

    def intend(self, tasks: Sequence[Sequence[str]] | None) -> None:
        """Note what is about to be submitted; None: it was not."""
        self.intent = None if tasks is None else [list(task) for task in tasks]
        self.taken = False
        self.save()

    def note_taken(self) -> None:
        """Note that sbatch has taken what was intended; it is not to be submitted again."""
        self.taken = True
        self.save()

    def add(self, job: str, tasks: Sequence[Sequence[str]]) -> None:
        """Note an array that Slurm has taken; the file is replaced whole."""
        self.arrays.append((job, [list(task) for task in tasks]))
        self.intent, self.taken = None, False
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
        self.intent, self.taken = None, False

    def save(self) -> None:
        """Write the file."""
        arrays = [{"job": job, "tasks": tasks} for job, tasks in self.arrays]
        options = {key: getattr(self, key) for key in _OPTIONS}
        snapshot = str(self.snapshot)
        content = {
            "version": 1,
            "snapshot": snapshot,
            **options,
            "arrays": arrays,
            "intent": self.intent,
            **({"taken": True} if self.taken else {}),
        }
        # of 100,000 trials it is written some 300 times; indented, that takes ten times as long
        write_text(self.file, json.dumps(content) + "\n")

    def tasks(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each task as squeue names it, ``1201_0``, with its trials."""
        for job, tasks in self.arrays:
            for index, trials in enumerate(tasks):
                # a single task is submitted as a plain job, no array
                yield (f"{job}_{index}" if len(tasks) > 1 else job), trials


_contents: dict[Path, tuple[tuple[int, ...], dict[str, Any]]] = {}
"""What was read of submissions, by what the files were then: a large sweep's are megabytes."""


def _content(file: Path) -> dict[str, Any]:
    """Return what stands in a submission's file; it is read again only if it has changed."""
    status = file.stat()
    version = (status.st_ino, status.st_mtime_ns, status.st_size)
    last = _contents.get(file)
    if last is None or last[0] != version:
        try:
            content = json.loads(file.read_text())
        except RecursionError:
            raise ValueError(f"{file}: is nested too deeply") from None
        _check(content)
        _contents[file] = last = version, content
    return last[1]


def _check(content: Any) -> None:
    """Raise `ValueError` where the content of a file is no submission's."""
    if not isinstance(content, dict) or not all(_right_parts(content)):
        raise ValueError("no submission")


def _right_parts(content: Mapping[str, Any]) -> Iterator[bool]:
    """Yield whether each part is as `Submission.save` writes it; the first that is not ends it."""
    arrays, created = content.get("arrays"), content.get("created", 0.0)
    yield isinstance(content.get("snapshot"), str) and isinstance(arrays, list)
    for array in arrays or ():
        yield isinstance(array, dict)
        yield _is_job(array.get("job")) and _is_tasks(array.get("tasks"))
    yield content.get("intent") is None or _is_tasks(content["intent"])
    yield all(isinstance(content[n], kind) for n, kind in _OPTIONS.items() if n in content)
    yield all(isinstance(each, str) for each in content.get("overrides", ()))
    yield 0 <= created < MOST_SECONDS


def _is_job(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[\w.+-]{1,50}", value, re.ASCII))


def _is_tasks(value: Any) -> bool:
    tasks = isinstance(value, list) and all(isinstance(task, list) for task in value)
    return tasks and all(isinstance(trial, str) for task in value for trial in task)


def _noted(note: Path) -> str:
    """Return the number that an array's jobs have noted; empty: none."""
    try:
        job = note.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return job if _is_job(job) else ""


def job_note(folder: Path, number: int) -> Path:
    """Return the file in which an array's jobs write its number down.

    Args:
        folder: of the submission.
        number: of the array in it, from 0.
    """
    return folder / f"tasks-{number}.job"


def submission_names(sweep_folder: Path) -> frozenset[str]:
    """Return the names of a sweep's submissions, as they are now."""
    return frozenset(file.parent.name for file in (sweep_folder / FOLDER).glob("*/jobs.json"))


def submissions(sweep_folder: Path) -> list[Submission]:
    """Return a sweep's submissions, oldest first."""
    made = []
    for file in sorted((sweep_folder / FOLDER).glob("*/jobs.json")):
        try:
            made.append(Submission.read(file))
        except (OSError, ValueError, KeyError):
            continue  # being removed, or not ours
    return sorted(made, key=lambda submission: submission.created)


def jobs_of(sweep_folder: Path) -> dict[str, str]:
    """Return the newest job of each trial, by the trial's identity."""
    return {
        trial: task
        for submission in submissions(sweep_folder)
        for task, trials in submission.tasks()
        for trial in trials
    }


# --- and what the queue says of them


MAX_FAILED_STARTS = 3
"""Jobs in a row that may end before their trial begins."""


@dataclass(frozen=True)
class TrialJob:
    """A trial's newest job, or a search's worker."""

    job: str
    queued: Queued | None
    """None: no longer in the queue."""
    failed_starts: int = 0
    """Jobs in a row that ended before the trial began (`mlmodeldev.slurm.failed_starts`)."""
    note: str = ""
    """How the last one ended, where there is something to say of it."""

    @property
    def is_given_up(self) -> bool:
        """Whether the trial is not submitted again by itself."""
        return self.failed_starts >= MAX_FAILED_STARTS

    @property
    def is_leaving(self) -> bool:
        """Whether the job has ended, and its node has not let it go yet."""
        return self.queued is not None and self.queued.state == "COMPLETING"

    def runs(self, record: Mapping[str, Any]) -> bool:
        """Return whether this is the job that a trial's record tells of."""
        return self.job == task_name(record.get("slurm") or {})


def trial_jobs(sweep_folder: Path) -> dict[str, TrialJob]:
    """Return the newest job of each trial that was ever submitted, by the trial's identity.

    Raises:
        UsageError: Slurm does not answer.
    """
    reattach_arrays(sweep_folder)
    jobs = jobs_of(sweep_folder)
    queue = _queue_of(sweep_folder, jobs.values())
    queued = {trial: TrialJob(job, queue.get(job)) for trial, job in jobs.items()}
    return {**queued, **dict.fromkeys(trials_without_number(sweep_folder), _WITHOUT_NUMBER)}


NO_NUMBER = "?"
"""Stands for a job's number that sbatch did not say."""
_WITHOUT_NUMBER = TrialJob(NO_NUMBER, Queued("PENDING", "sbatch said no number", "", ""))


def trials_without_number(sweep_folder: Path) -> set[str]:
    """Return the trials of jobs that sbatch has taken, and whose number is still not to be had."""
    intents = [made.intent for made in submissions(sweep_folder) if made.taken and made.intent]
    return {trial for intent in intents for task in intent for trial in task}


def forget_taken(sweep_folder: Path) -> list[Path]:
    """Give the jobs up whose number is not to be had; return their submissions' folders."""
    given_up = [made for made in submissions(sweep_folder) if made.taken]
    for submission in given_up:
        submission.intend(None)
    return [submission.folder for submission in given_up]


def search_workers(sweep_folder: Path) -> dict[str, TrialJob]:
    """Return a search's workers that are still in the queue, by their names."""
    reattach_arrays(sweep_folder)
    names = [task for made in submissions(sweep_folder) for task, _ in made.tasks()]
    queue = _queue_of(sweep_folder, names)
    return {name: TrialJob(name, queue[name]) for name in names if name in queue}


def live_arrays(sweep_folder: Path, leaving: bool = True) -> list[str]:
    """Return the numbers of the sweep's arrays that are still in the queue.

    Args:
        leaving: whether those count that have ended, and that their nodes have not let go yet; a
            job that must come after them would wait as long as such a node is stuck.
    """
    reattach_arrays(sweep_folder)
    numbers = [job for made in submissions(sweep_folder) for job, _ in made.arrays]
    queue = _queue_of(sweep_folder, numbers)
    live = {array_of(t) for t, q in queue.items() if leaving or q.state != "COMPLETING"}
    return [number for number in numbers if number in live]


def _queue_of(sweep_folder: Path, jobs: Iterable[str]) -> dict[str, Queued]:
    """Return what is in the queue of these jobs' arrays; Slurm is not asked about none."""
    arrays = {array_of(job) for job in jobs}
    return read_queue(arrays, submitters(sweep_folder)) if arrays else {}


def submitters(sweep_folder: Path) -> set[int]:
    """Return the ids of the users who have submitted trials of a sweep: who owns their notes."""
    ids = {os.getuid()}
    for file in (sweep_folder / FOLDER).glob("*/jobs.json"):
        with contextlib.suppress(OSError):  # being removed
            ids.add(file.stat().st_uid)
    return ids


def reattach_arrays(sweep_folder: Path) -> None:
    """Find the arrays in the queue whose number a killed submit had no time to note.

    Raises:
        UsageError: Slurm does not answer.
    """
    unfinished = [made for made in submissions(sweep_folder) if made.intent is not None]
    if not unfinished:
        return
    scripts = queued_scripts(submitters(sweep_folder))
    for submission in unfinished:
        if job := _number_among(scripts, submission):
            submission.reattach(job)


def queued_number(submission: Submission) -> str:
    """Return the number that the queue has for what was just submitted; empty: none yet."""
    try:
        return _number_among(queued_scripts(), submission)
    except UsageError:
        return ""


def _number_among(scripts: Mapping[str, str], submission: Submission) -> str:
    noted = {job for job, _ in submission.arrays}
    folder = f"{submission.folder}/"
    mine = (job for job, script in scripts.items() if script.startswith(folder))
    return next((job for job in mine if job not in noted), "")
