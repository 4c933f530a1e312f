"""Run a source's trials as Slurm jobs, a job for each, until the source has no more.

It does for a cluster what `mlmodeldev.trial.pool.run_pool` does for a machine. Nothing depends on
it staying alive: the jobs run on, and a source that gives a trial again finds its job again.

Example::

    status = Feeder(source, settings.cluster, sweep_folder, root, ["model"], slots=4).run()
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import EXIT_INTERRUPTED, UsageError
from mlmodeldev.slurm.entrypoint import Job
from mlmodeldev.slurm.query import Queued, queue
from mlmodeldev.slurm.snapshot import take_snapshot
from mlmodeldev.slurm.submission import Submission, jobs_of, reattach
from mlmodeldev.tracking.upload import state_of, wait
from mlmodeldev.tracking.wandb_rows import stored_record
from mlmodeldev.tracking.wandb_stop import STOP_NOTE
from mlmodeldev.trial import signals
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.task import Source, TrialResult, TrialTask, fill

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster

POLL_SECONDS = 1.0
"""Between two looks at the trials' folders."""
QUEUE_SECONDS, LEAVING_SECONDS = 10.0, 2.0
"""Between two questions to squeue; shorter while a job is about to leave and another waits."""
RETRY_SECONDS = 30.0
"""Until a job is submitted again that Slurm has not taken."""


@dataclass
class _Dispatched:
    """A trial that a job runs, will run, or could not be submitted for."""

    work: TrialTask
    job: str | None = None
    begun: float = field(default_factory=time.monotonic)
    missed: int = 0
    again_at: float = 0.0


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
        self._fed: list[_Dispatched] = []
        self._leaving: set[str] = set()  # jobs whose trial has ended, and that still have a node
        self._queue: dict[str, Queued] = {}
        self._asked_at = 0.0
        self._submission: Submission | None = None
        self._states: list[str] = []

    def run(self) -> int:
        """Feed until the source has no more; return 0 well, 1 some failed, 75 interrupted."""
        more = True
        while (more or self._fed) and not signals.requested():
            more = more and self._fill()
            self._submit_due()
            self._look()
            self.source.tick()
            wait(POLL_SECONDS, signals.requested)
        if signals.requested() or "interrupted" in self._states:
            return EXIT_INTERRUPTED
        return 1 if "failed" in self._states else 0

    def _fill(self) -> bool:
        def room() -> bool:
            return len(self._fed) + len(self._leaving) < self.slots

        return fill(
            self.source, room, lambda work: self._fed.append(_Dispatched(work, self._job_of(work)))
        )

    def _job_of(self, work: TrialTask) -> str | None:
        """Return the job that is at this trial already, if there is one."""
        reattach(self.folder)
        job = jobs_of(self.folder).get(work.folder.name)
        if job is not None and job in queue({job.partition("_")[0]}):
            return job
        return None

    # --- submitting

    def _submit_due(self) -> None:
        now = time.monotonic()
        for fed in self._fed:
            if fed.job is None and now >= fed.again_at and not _over(fed.work):
                try:
                    fed.job = self._submit(fed.work)
                    self._asked_at = 0.0
                except UsageError as error:
                    if self._submission is None or not self._submission.arrays:
                        raise
                    print(f"{error}; trying again", file=sys.stderr, flush=True)
                    fed.again_at = now + RETRY_SECONDS

    def _submit(self, work: TrialTask) -> str:
        from mlmodeldev.slurm.submit import submit

        submission = self._submission or self._begin()
        jobs, trials = [Job([work], 1, list(self.modules))], [[work.folder.name]]
        return submit(submission, self.cluster, self.folder.name, jobs, trials)

    def _begin(self) -> Submission:
        code = take_snapshot(self.root, self.folder.parent)
        facts = {
            "gpus": self.cluster.gpus,
            "restarts_after_kill": self.cluster.restarts_after_kill,
        }
        self._submission = Submission.new(self.folder, code, **facts)
        return self._submission

    # --- how they end

    def _look(self) -> None:
        fresh = self._ask_queue()
        for fed in list(self._fed):
            ended = self._ended(fed, fresh)
            if ended is not None:
                self._fed.remove(fed)
                self._leaving |= {fed.job} if fed.job else set()
                self._states.append(ended.state)
                self.source.report(fed.work, ended)

    def _ask_queue(self) -> bool:
        """Ask squeue now and then; return whether the answer is new."""
        jobs = {fed.job for fed in self._fed if fed.job} | self._leaving
        pause = LEAVING_SECONDS if self._leaving else QUEUE_SECONDS
        if not jobs or time.monotonic() - self._asked_at < pause:
            return False
        try:
            self._queue = queue({job.partition("_")[0] for job in jobs})
        except UsageError as error:
            print(f"{error}; the jobs run on", file=sys.stderr, flush=True)
            return False
        finally:
            self._asked_at = time.monotonic()
        self._leaving &= self._queue.keys()
        return True

    def _ended(self, fed: _Dispatched, fresh: bool) -> TrialResult | None:
        seconds = time.monotonic() - fed.begun
        record = stored_record(fed.work.folder)
        state = state_of(record)
        if state in ("done", "pruned"):
            return TrialResult(0, state, record.get("reason"), seconds)
        if not fresh or fed.job is None:
            return None
        if fed.job in self._queue:
            fed.missed = 0
            return self._stop_waiting(fed, seconds)
        fed.missed += 1
        if fed.missed < 2 or state == "running":  # its lease, or its last words, may be under way
            return None
        return _gone(fed, state, record.get("reason"), seconds)

    def _stop_waiting(self, fed: _Dispatched, seconds: float) -> TrialResult | None:
        """Take a trial out of the queue that is to stop and has no node at the moment."""
        assert fed.job is not None
        waits = self._queue[fed.job].state == "PENDING"
        if not waits or not (fed.work.folder / STOP_NOTE).exists():
            return None
        subprocess.run(["scancel", fed.job], capture_output=True, timeout=60, check=False)
        reason = "ended early by W&B, while it waited for a node"
        TrialFolder(fed.work.folder).update(state="pruned", reason=reason)
        return TrialResult(0, "pruned", reason, seconds)


def _over(work: TrialTask) -> bool:
    return state_of(stored_record(work.folder)) in ("done", "pruned")


def _gone(fed: _Dispatched, state: str, reason: str | None, seconds: float) -> TrialResult:
    """Say how a trial ended whose job is no longer there."""
    folder = TrialFolder(fed.work.folder)
    if state == "interrupted":
        return TrialResult(EXIT_INTERRUPTED, state, f"job {fed.job} was cancelled", seconds)
    if state != "failed":
        reason = f"job {fed.job} is gone; see log.txt and the job's log"
        folder.update(state="failed", reason=reason, owner=None, lease=None)
    return TrialResult(1, "failed", reason, seconds)
