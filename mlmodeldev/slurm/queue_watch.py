"""A sweep's jobs, looked at again and again: Slurm is asked seldom, and not twice for one thing.

Example::

    queue = QueueWatch(sweep_state)
    jobs = queue.read(entries)          # by trial, as `submission.trial_jobs`
    queue.workers, queue.complaint
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.failed_starts import with_ends
from mlmodeldev.slurm.submission import FOLDER, search_workers, trial_jobs
from mlmodeldev.slurm.trial_entries import ENDED

if TYPE_CHECKING:
    from mlmodeldev.slurm.submission import TrialJob
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.slurm.trial_entries import TrialEntry

QUEUE_SECONDS = 15.0
"""Between two questions to squeue; sites ask not to be asked more often."""
ENDS_SECONDS = 60.0
"""Between two questions how jobs ended, where no other job has."""


class QueueWatch:
    """The jobs of a sweep.

    Attributes:
        workers: of a search, those in the queue, by their names.
        complaint: why Slurm does not answer; the jobs are those of its last answer then.
    """

    def __init__(self, sweep_state: SweepState) -> None:
        self.workers: Mapping[str, TrialJob] = {}
        self.complaint = ""
        self._folder, self._is_search = sweep_state.folder, sweep_state.is_search
        self._jobs: dict[str, TrialJob] = {}
        self._gone: frozenset[tuple[str, ...]] = frozenset()
        self._read_at = self._ends_at = float("-inf")

    def read(self, entries: Collection[TrialEntry]) -> Mapping[str, TrialJob]:
        """Return the trials' newest jobs, with a word on those that ended badly."""
        now = time.monotonic()
        if now - self._read_at < QUEUE_SECONDS or not (self._folder / FOLDER).is_dir():
            return self._jobs
        self._read_at = now
        try:
            self._ask(entries, now)
            self.complaint = ""
        except UsageError as error:
            self.complaint = f"{error}; jobs are shown as last seen"
        return self._jobs

    def _ask(self, entries: Collection[TrialEntry], now: float) -> None:
        if self._is_search:
            self.workers = search_workers(self._folder)
        jobs = trial_jobs(self._folder)
        gone = frozenset(
            (entry.trial.id, jobs[entry.trial.id].job, entry.state)
            for entry in entries
            if entry.state not in ENDED and entry.trial.id in jobs
            if jobs[entry.trial.id].queued is None
        )
        if gone != self._gone or now - self._ends_at >= ENDS_SECONDS:
            self._jobs = with_ends(entries, jobs, self._folder)
            self._gone, self._ends_at = gone, now
        else:
            self._jobs = {trial: self._as_before(trial, job) for trial, job in jobs.items()}

    def _as_before(self, trial: str, job: TrialJob) -> TrialJob:
        """Return a job with what was to be said of its end the last time."""
        last = self._jobs.get(trial)
        if last is None or last.job != job.job or job.queued is not None:
            return job
        return replace(job, failed_starts=last.failed_starts, note=last.note)
