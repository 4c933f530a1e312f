"""Run a source's trials as Slurm jobs, a job for each, until the source has no more.

It does for a cluster what `mlmodeldev.trial.pool.run_pool` does for a machine. Nothing depends on
it staying alive: the jobs run on, and a source that gives a trial again finds its job again.

Example::

    status = Dispatcher(source, settings.cluster, sweep_folder, root, ["model"], slots=4).run()
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import EXIT_INTERRUPTED, UsageError
from mlmodeldev.slurm.entrypoint import Job
from mlmodeldev.slurm.query import Queued, array_of, read_queue, run_command
from mlmodeldev.slurm.share import with_share
from mlmodeldev.slurm.snapshot import take_snapshot
from mlmodeldev.slurm.submission import (
    Submission,
    jobs_of,
    reattach_arrays,
    trials_without_number,
)
from mlmodeldev.slurm.trial_entries import ENDED
from mlmodeldev.tracking.upload import state_of, wait
from mlmodeldev.tracking.wandb_stop import STOP_NOTE
from mlmodeldev.trial import signals
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.record import read_record
from mlmodeldev.trial.task import Source, TrialResult, TrialTask, fill

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster

POLL_SECONDS = 1.0
"""Between two looks at the trials' folders."""
QUEUE_SECONDS, LEAVING_SECONDS = 10.0, 2.0
"""Between two questions to squeue; shorter while a job is about to leave and another waits."""
STUCK_SECONDS = 120.0
"""How long a job that has ended may keep its slot; its node may be stuck."""
RETRY_SECONDS = 30.0
"""Until a job is submitted again that Slurm has not taken."""


@dataclass
class _Dispatched:
    """A trial that a job runs, will run, or could not be submitted for."""

    work: TrialTask
    job: str | None = None
    begun: float = field(default_factory=time.monotonic)
    missed: int = 0
    """How often in a row the queue did not have the job."""
    submit_at: float = 0.0
    is_unsure: bool = False
    """Whether sbatch may have taken it, though it did not say so."""


class Dispatcher:
    """Keeps so many jobs in the queue.

    Args:
        source: gives trials and is told how they ended.
        cluster: what a job asks for.
        folder: the sweep's.
        root: the project's folder, which is copied for the jobs.
        modules: what trials import beside the program.
        slots: jobs in the queue at once.
    """

    def __init__(
        self,
        source: Source,
        cluster: Cluster,
        folder: Path,
        root: Path,
        modules: Sequence[str],
        slots: int,
    ) -> None:
        self.source, self.cluster, self.folder, self.root = source, cluster, folder, root
        self.modules, self.slots = modules, slots
        self._dispatched: list[_Dispatched] = []
        self._leaving: set[str] = set()  # jobs whose trial has ended, and that still have a node
        self._completing_since: dict[str, float] = {}
        self._queue: dict[str, Queued] = {}
        self._queue_read_at = 0.0
        self._submission: Submission | None = None
        self._has_submitted = False
        self._states: list[str] = []

    def run(self) -> int:
        """Submit until the source has no more; return 0 well, 1 some failed, 75 interrupted."""
        more = True
        while (more or self._dispatched) and not signals.requested():
            more = more and fill(self.source, self._has_room, self._accept)
            self._submit_due()
            self._report_ended()
            self.source.tick()
            wait(POLL_SECONDS, signals.requested)
        if signals.requested() or "interrupted" in self._states:
            return EXIT_INTERRUPTED
        return 1 if "failed" in self._states else 0

    def _has_room(self) -> bool:
        return len(self._dispatched) + len(self._leaving) < self.slots

    def _accept(self, work: TrialTask) -> None:
        self._dispatched.append(_Dispatched(work, self._live_job(work)))

    def _live_job(self, work: TrialTask) -> str | None:
        """Return the job that is at this trial already, if there is one."""
        reattach_arrays(self.folder)
        job = jobs_of(self.folder).get(work.folder.name)
        return job if job is not None and job in read_queue({array_of(job)}) else None

    # --- submitting

    def _submit_due(self) -> None:
        now = time.monotonic()
        for each in self._dispatched:
            if each.job is None and now >= each.submit_at and not _is_over(each.work):
                try:
                    self._submit_or_reattach(each)
                    self._queue_read_at = 0.0
                except UsageError as error:
                    each.is_unsure = bool(self._submission and self._submission.intent)
                    if not each.is_unsure and not self._has_submitted:
                        raise
                    if each.is_unsure:  # its files are that job's
                        self._submission = None
                    print(f"{error}; trying again", file=sys.stderr, flush=True)
                    each.submit_at = now + RETRY_SECONDS

    def _submit_or_reattach(self, each: _Dispatched) -> None:
        if each.is_unsure:
            each.job = self._live_job(each.work)
            if each.job or each.work.folder.name in trials_without_number(self.folder):
                each.submit_at = time.monotonic() + RETRY_SECONDS
                return
            each.is_unsure = False
        each.job = self._submit(each.work)
        self._has_submitted = True

    def _submit(self, work: TrialTask) -> str:
        from mlmodeldev.slurm.submit import submit

        if self._submission is None:
            self._submission = Submission.new(
                self.folder,
                take_snapshot(self.root, self.folder.parent),
                gpus=self.cluster.gpus,
                restarts_after_kill=self.cluster.restarts_after_kill,
            )
        jobs, trials = [Job([work], 1, list(self.modules))], [[work.folder.name]]
        return submit(self._submission, self._resources(), self.folder.name, jobs, trials)

    def _resources(self) -> Cluster:
        """Return what a job asks for, its share of a node's CPUs and memory among it."""
        from mlmodeldev.slurm.limits import read_limits

        if "auto" in (self.cluster.cpus_per_task, self.cluster.mem_gb):
            try:
                self.cluster = with_share(self.cluster, read_limits(self.cluster))
            except UsageError:
                return with_share(self.cluster, None)  # Slurm is asked again for the next
        return self.cluster

    # --- how they end

    def _report_ended(self) -> None:
        fresh = self._refresh_queue()
        for each in list(self._dispatched):
            result = self._result(each, fresh)
            if result is not None:
                self._dispatched.remove(each)
                self._leaving |= {each.job} if each.job else set()
                self._states.append(result.state)
                self.source.report(each.work, result)

    def _refresh_queue(self) -> bool:
        """Ask squeue now and then; return whether the answer is new."""
        jobs = {each.job for each in self._dispatched if each.job} | self._leaving
        pause = LEAVING_SECONDS if self._leaving else QUEUE_SECONDS
        if not jobs or time.monotonic() - self._queue_read_at < pause:
            return False
        try:
            self._queue = read_queue({array_of(job) for job in jobs})
        except UsageError as error:
            print(f"{error}; the jobs run on", file=sys.stderr, flush=True)
            return False
        finally:
            self._queue_read_at = time.monotonic()
        self._leaving = {job for job in self._leaving if self._is_on_a_node(job)}
        return True

    def _is_on_a_node(self, job: str) -> bool:
        """Return whether a job still counts, which a stuck node may keep in the queue for days."""
        if job not in self._queue:
            return False
        if self._queue[job].state != "COMPLETING":
            return True
        now = time.monotonic()
        return now - self._completing_since.setdefault(job, now) < STUCK_SECONDS

    def _result(self, each: _Dispatched, fresh: bool) -> TrialResult | None:
        seconds = time.monotonic() - each.begun
        record = read_record(each.work.folder)
        state = state_of(record)
        if state in ENDED:
            return TrialResult(0, state, record.get("reason"), seconds)
        if not fresh or each.job is None:
            return None
        if each.job in self._queue:
            each.missed = 0
            return self._stop_pending(each, seconds)
        each.missed += 1
        if each.missed < 2 or state == "running":  # its lease, or its last words, may be under way
            return None
        return _result_without_job(each, state, record.get("reason"), seconds)

    def _stop_pending(self, each: _Dispatched, seconds: float) -> TrialResult | None:
        """Take a trial out of the queue that is to stop and has no node at the moment."""
        assert each.job is not None
        pending = self._queue[each.job].state == "PENDING"
        if not pending or not (each.work.folder / STOP_NOTE).exists():
            return None
        run_command("scancel", each.job)
        reason = "ended early by W&B, while it waited for a node"
        TrialFolder(each.work.folder).update(state="pruned", reason=reason)
        return TrialResult(0, "pruned", reason, seconds)


def _is_over(work: TrialTask) -> bool:
    return state_of(read_record(work.folder)) in ENDED


def _result_without_job(
    each: _Dispatched, state: str, reason: str | None, seconds: float
) -> TrialResult:
    """Return how a trial ended whose job is no longer there."""
    if state == "interrupted":
        return TrialResult(EXIT_INTERRUPTED, state, f"job {each.job} was cancelled", seconds)
    if state != "failed":
        reason = f"job {each.job} is gone; see log.txt and the job's log"
        folder = TrialFolder(each.work.folder)
        folder.update(state="failed", reason=reason, owner=None, lease=None)
    return TrialResult(1, "failed", reason, seconds)
