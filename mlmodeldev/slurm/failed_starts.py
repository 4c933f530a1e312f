"""Trials whose jobs ended before they began: a node that did not boot, a setup line that failed.

Such a trial has no record of it, and would be submitted for ever. Its job's state and log are
named, and after some failed starts in a row it counts as failed; ``retry`` runs it again.

Example::

    jobs = with_ends(sweep_state.entries, trial_jobs(folder), folder)
    jobs["gtsqtqg3"].failed_starts, jobs["gtsqtqg3"].note
    # 2, "job 1201_0 FAILED (exit 1:0) before its trial began; log: .../1201_0_0_log.out"
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.lease import owned
from mlmodeldev.slurm.job_ends import JobEnd, read_job_ends
from mlmodeldev.slurm.query import task_name
from mlmodeldev.slurm.submission import TrialJob, submissions

if TYPE_CHECKING:
    from mlmodeldev.slurm.trial_entries import TrialEntry

_Made = tuple[str, Path]
"""A job, and the folder of the submission that made it."""
_OPEN = frozenset({"missing", "interrupted", "pending"})
"""States in which a trial waits for a job to begin."""


def with_ends(
    entries: Iterable[TrialEntry], jobs: Mapping[str, TrialJob], sweep_folder: Path
) -> dict[str, TrialJob]:
    """Return the trials' jobs with what is to be said of those that ended badly.

    Args:
        entries: the trials; Slurm is asked only about the jobs of those that have not ended well.
        jobs: the newest of each trial.
        sweep_folder: holds the submissions.
    """
    gone = {trial: job for trial, job in jobs.items() if job.queued is None}
    open_entries = {e.trial.id: e for e in entries if e.trial.id in gone and _is_open(e)}
    if not open_entries:
        return dict(jobs)
    every = _jobs_of_each(open_entries, sweep_folder)
    history = {trial: _since_record(e, every[trial]) for trial, e in open_entries.items()}
    ends = read_job_ends([job for made in history.values() for job, _ in made])
    ended = {t: _with_end(gone[t], open_entries[t], made, ends) for t, made in history.items()}
    return {**jobs, **ended}


def _is_open(entry: TrialEntry) -> bool:
    if entry.state == "running":
        return not owned(entry.record)
    return entry.state in _OPEN or entry.state == "failed"


def _jobs_of_each(trials: Collection[str], sweep_folder: Path) -> dict[str, list[_Made]]:
    """Return the jobs of these trials, the newest first, each with its submission's folder."""
    jobs: dict[str, list[_Made]] = {trial: [] for trial in trials}
    for submission in reversed(submissions(sweep_folder)):
        for task, names in submission.tasks():
            for trial in names:
                if trial in jobs:
                    jobs[trial].append((task, submission.folder))
    return jobs


def _since_record(entry: TrialEntry, jobs: Sequence[_Made]) -> list[_Made]:
    """Return a trial's jobs back to the one that its record tells of."""
    last = task_name(entry.record.get("slurm") or {})
    numbers = [task for task, _ in jobs]
    return list(jobs[: numbers.index(last) + 1 if last in numbers else None])


def _with_end(
    job: TrialJob, entry: TrialEntry, made: Sequence[_Made], ends: Mapping[str, JobEnd]
) -> TrialJob:
    newest = ends.get(job.job)
    if job.runs(entry.record) or entry.state not in _OPEN:
        memory = newest is not None and newest.state == "OUT_OF_MEMORY"
        return replace(job, note=newest.sentence(job.job)) if newest and memory else job
    count = 0
    for task, folder in made:
        log = folder / f"{task}_0_log.out"
        if task == task_name(entry.record.get("slurm") or {}) or not _failed(ends.get(task), log):
            break
        count += 1
    if not count:
        return job
    what = newest.sentence(job.job) if newest else f"job {job.job} ended"
    log = made[0][1] / f"{job.job}_0_log.out"
    where = f"; log: {log}" if log.is_file() else "; it left no log"
    return replace(job, failed_starts=count, note=f"{what} before its trial began{where}")


def _failed(end: JobEnd | None, log: Path) -> bool:
    """Return whether a job ended badly; where Slurm does not tell, by its having begun to print."""
    return end.is_failure if end else log.is_file()
