"""A W&B sweep for machines without a network: the login node talks, the nodes compute.

The bridge takes runs from the server as an agent does, gives them to whatever runs trials here
(Slurm jobs, or the pool), and uploads what they log while they log it. So the server's search and
its early termination see the trials; a trial is told to stop by a note in its folder.

Example::

    with Syncer(runs_dir, sweep.id, keep_open=True) as syncer:
        source = BridgeSource(sweep, runs_dir, syncer, reattach=True)
        status = Dispatcher(source, ...).run()              # or run_pool(source)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mlmodeldev.slurm.agent_notes import AgentNote
from mlmodeldev.slurm.agent_source import AgentSource
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.sweep.starter import Start
from mlmodeldev.tracking.upload import MEMORY, Syncer
from mlmodeldev.tracking.wandb_api import RemoteSweep
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.task import TrialResult, TrialTask

OFFLINE = "logger.wandb.mode=offline"
"""A setting of every bridged trial: it has no network."""

UPLOAD_SECONDS = 5.0
"""Between two looks for rows to upload."""


class BridgeSource(AgentSource):
    """Runs of a W&B sweep, for trials that can't reach the server.

    Args:
        sweep: on the server.
        runs_dir: where trials lie; the nodes see it too.
        syncer: uploads what the trials log.
        reattach: take a run back even if its trial is running (its job outlived this process).
        fixed, count, patience, print_line, start, served: as for `AgentSource`.
    """

    def __init__(
        self,
        sweep: RemoteSweep,
        runs_dir: Path,
        syncer: Syncer,
        reattach: bool,
        fixed: Sequence[str] = (),
        count: int | None = None,
        patience: int = 5,
        print_line: Callable[[str], None] = print,
        start: Start | None = None,
        served: ServedSweep | None = None,
    ) -> None:
        super().__init__(
            sweep,
            runs_dir,
            [*fixed, OFFLINE],
            count=count,
            patience=patience,
            start=start,
            print_line=print_line,
            served=served,
        )
        self.syncer, self.reattach = syncer, reattach
        self._last_upload = 0.0
        self._given_up: set[str] = set()
        self._printed_notes: dict[str, str] = {}

    def report(self, work: TrialTask, ended: TrialResult) -> None:
        """Upload what the trial has left, so that the search knows it before it gives the next."""
        if ended.state == "interrupted":
            self._given_up.add(work.id)  # the next bridge goes on with it
        else:
            status = self.syncer.visit_one(work.folder)
            self._print_note(status.folder, status.note)
        super().report(work, ended)

    def tick(self) -> None:
        """Send heartbeats, and upload."""
        super().tick()
        now = time.monotonic()
        if now - self._last_upload >= UPLOAD_SECONDS:
            self.upload()
            self._last_upload = time.monotonic()

    def upload(self) -> bool:
        """Upload what there is; return whether everything that has ended is up."""
        try:
            statuses = self.syncer.visit()
        except Exception as error:  # the trials run on, and the next look may do
            self._print_note(str(self.folder), f"{type(error).__name__}: {error}")
            return False
        for status in statuses:
            self._print_note(status.folder, status.note)
        return all(status.up for status in statuses if status.final)

    def _next_interrupted(self) -> AgentNote | None:
        if not self.reattach:
            return super()._next_interrupted()
        note = self.notes.take_over() or (self._waiting.pop(0) if self._waiting else None)
        if note is not None and note.run in self._given_up:
            self.notes.write(note, active=False)
            return None
        return note

    def _begin(self, note: AgentNote, work: TrialTask) -> None:
        work.folder.mkdir(parents=True, exist_ok=True)
        self._claim_run(TrialFolder(work.folder), note)
        super()._begin(note, work)

    def _claim_run(self, folder: TrialFolder, note: AgentNote) -> None:
        """Write down which run the trial is; a point that was drawn twice counts for both."""
        record = folder.read()
        place = {"wandb_entity": self.sweep.entity or None, "wandb_project": self.sweep.project}
        if not record:
            folder.update(state="pending", wandb_id=note.run, wandb_sweep=self.sweep.id, **place)
        elif record.get("wandb_id") != note.run:
            folder.update(
                wandb_id=note.run, wandb_sweep=self.sweep.id, wandb_path=None, uploaded=False,
                **place,
            )  # fmt: skip
            (folder.path / MEMORY).unlink(missing_ok=True)

    def _print_note(self, folder: str, note: str) -> None:
        if note and self._printed_notes.get(folder) != note:
            print(f"{folder}: not uploaded: {note}", file=sys.stderr, flush=True)
        self._printed_notes[folder] = note
