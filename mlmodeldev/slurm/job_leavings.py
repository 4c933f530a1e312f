"""What jobs have left that nothing names: logs of former jobs, copies of code, empty folders.

A job's log is named by the record of the trial that ran in it last; those of a trial that has not
ended well stay, for they are counted and shown. A copy of the code is named by a submission whose
jobs are in the queue, or of which a trial is there.

Example::

    for drop in sweep_leavings(runs / "digits"): print(drop.path, drop.size)
    for drop in unnamed_snapshots(runs): print(drop.path, drop.size)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import is_leftover
from mlmodeldev.slurm import snapshot
from mlmodeldev.slurm.query import array_of, task_name
from mlmodeldev.slurm.submission import FOLDER, Submission, live_arrays, submissions
from mlmodeldev.slurm.trial_entries import ENDED
from mlmodeldev.slurm.trial_sizes import RECENT_SECONDS, Drop, is_recent, tree_size
from mlmodeldev.trial.record import read_record

LOGS, SNAPSHOTS, EMPTY, LEFTOVERS = "job logs", "copies of code", "empty folders", "leftovers"


@dataclass(frozen=True)
class _SweepJobs:
    """A sweep's submissions, its trials' records by name, and what is in the queue."""

    submissions: list[Submission]
    records: dict[str, dict[str, Any]]
    live: frozenset[str]

    @property
    def named(self) -> set[str]:
        """The jobs that the records name."""
        return {task_name(record.get("slurm") or {}) for record in self.records.values()}


def _read(sweep_folder: Path) -> _SweepJobs:
    """Read a sweep's jobs.

    Raises:
        UsageError: it has jobs, and Slurm does not say which are in the queue.
    """
    records = {f.parent.name: read_record(f.parent) for f in sweep_folder.glob("*/trial.json")}
    live = frozenset(live_arrays(sweep_folder))
    return _SweepJobs(submissions(sweep_folder), records, live)


def sweep_leavings(sweep_folder: Path, older_than: float = 0.0) -> list[Drop]:
    """Return a sweep's job logs that nothing names, and folders in which nothing is.

    Args:
        sweep_folder: holds the trials' folders.
        older_than: seconds since the last change, an hour at least.

    Raises:
        UsageError: Slurm does not answer.
    """
    seconds = max(older_than, RECENT_SECONDS)
    drops = [*_unnamed_logs(_read(sweep_folder)), *_unnoted(sweep_folder), *_empty(sweep_folder)]
    return [drop for drop in drops if not is_recent(drop.path, seconds)]


def _unnamed_logs(jobs: _SweepJobs) -> Iterator[Drop]:
    named = jobs.named
    for submission in jobs.submissions:
        for task, trials in submission.tasks():
            if array_of(task) in jobs.live or task in named:
                continue
            if all(jobs.records.get(trial, {}).get("state") in ENDED for trial in trials):
                for log in sorted(submission.folder.glob(f"{task}_*_log.out")):
                    yield Drop(log, LOGS, log.stat().st_size)


def _unnoted(sweep_folder: Path) -> Iterator[Drop]:
    """Yield folders of submissions that were killed before anything was noted or submitted."""
    for folder in sorted((sweep_folder / FOLDER).glob("*")):
        if (
            folder.is_dir()
            and not folder.name.startswith(".")
            and not (folder / "jobs.json").exists()
        ):
            yield Drop(folder, LEFTOVERS, tree_size(folder))


def _empty(sweep_folder: Path) -> Iterator[Drop]:
    for folder in sorted(sweep_folder.glob("[!.]*")):
        if folder.is_dir() and not folder.is_symlink() and not _has_files(folder):
            yield Drop(folder, EMPTY, 0)


def _has_files(folder: Path) -> bool:
    return any(names for _, _, names in os.walk(folder))


def remove_empty(folder: Path) -> None:
    """Remove a folder and those in it, unless a file has come into one of them.

    Raises:
        OSError: one is not empty any more.
    """
    for place, _, _ in os.walk(folder, topdown=False):
        Path(place).rmdir()


# --- copies of the code


def unnamed_snapshots(runs_dir: Path, older_than: float = 0.0) -> list[Drop]:
    """Return the copies of the code that no submission of any sweep names.

    Raises:
        UsageError: Slurm does not answer.
    """
    folders = [p for p in sorted((runs_dir / snapshot.FOLDER).glob("*")) if p.is_dir()]
    if not folders:
        return []
    names = _named_snapshots(runs_dir, [folder.name for folder in folders])
    seconds = max(older_than, RECENT_SECONDS)
    return [
        Drop(folder, LEFTOVERS if is_leftover(folder.name) else SNAPSHOTS, tree_size(folder))
        for folder in folders
        if folder.name not in names and not is_recent(folder, seconds)
    ]


def _named_snapshots(runs_dir: Path, names: Collection[str]) -> set[str]:
    named: set[str] = set()
    for sweep_folder in sorted(file.parent for file in runs_dir.glob(f"*/{FOLDER}")):
        jobs = _read(sweep_folder)
        in_use = jobs.live | {array_of(task) for task in jobs.named}
        for submission in jobs.submissions:
            arrays = {number for number, _ in submission.arrays}
            trials = {trial for _, each in submission.tasks() for trial in each}
            if submission.intent is not None or arrays & in_use or trials & set(jobs.records):
                named.add(submission.snapshot.name)
        readable = {submission.file for submission in jobs.submissions}
        for file in {*sweep_folder.glob(f"{FOLDER}/*/jobs.json")} - readable:
            text = file.read_text(errors="replace")  # of a newer version, perhaps
            named |= {name for name in names if name in text}
    return named
