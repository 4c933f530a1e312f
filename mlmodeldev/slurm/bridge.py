"""A W&B sweep for machines without a network: the login node talks, the nodes compute.

The bridge takes runs from the server as an agent does, gives them to whatever runs trials here
(Slurm jobs, or the pool), and uploads what they log while they log it. So the server's search and
its early termination see the trials; a trial is told to stop by a note in its folder.

Example::

    with Syncer(runs_dir, sweep.id, keep_open=True) as syncer:
        source = BridgeSource(sweep, runs_dir, syncer, adopt=True)
        status = feed(source, ...)              # or run_pool(source)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mlmodeldev.slurm.agent_notes import AgentNote
from mlmodeldev.slurm.agent_source import AgentSource
from mlmodeldev.tracking.upload import MEMORY, Syncer
from mlmodeldev.tracking.wandb_api import RemoteSweep
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.task import TrialResult, TrialTask

OFFLINE = "logger.wandb.mode=offline"
"""What every bridged trial is told: it has no network."""

UPLOAD_SECONDS = 5.0
"""Between two looks for rows to upload."""


class BridgeSource(AgentSource):
    """Runs of a W&B sweep, for trials that can't reach the server.

    Args:
        sweep: on the server.
        runs_dir: where trials lie; the nodes see it too.
        syncer: uploads what the trials log.
        adopt: take a run back even if its trial is running (its job outlived this process).
        fixed, count, patience, say: as for `AgentSource`.
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
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(
            sweep, runs_dir, [*fixed, OFFLINE], count=count, patience=patience, say=say
        )
        self.syncer, self.reattach = syncer, reattach
        self._last_upload = 0.0
        self._given_up: set[str] = set()
        self._notes_said: dict[str, str] = {}

    def report(self, work: TrialTask, ended: TrialResult) -> None:
        """Upload what the trial has left, so that the search knows it before it gives the next."""
        if ended.state == "interrupted":
            self._given_up.add(work.id)  # the next bridge goes on with it
        else:
            self._visit(work.folder)
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
        known = self.syncer.visit()
        for status in known:
            self._say_note(status.folder, status.note)
        return all(status.up for status in known if status.final)

    # --- parts

    def _own(self) -> AgentNote | None:
        if not self.reattach:
            return super()._own()
        held = self.notes.take_over()
        if held is not None and held.run in self._given_up:
            self.notes.write(held, active=False)
            return None
        return held

    def _begin(self, held: AgentNote) -> TrialTask:
        path = self._path(held)
        path.mkdir(parents=True, exist_ok=True)
        self._claim_run(TrialFolder(path), held)
        return super()._begin(held)

    def _claim_run(self, folder: TrialFolder, held: AgentNote) -> None:
        """Write down which run the trial is; a point that was drawn twice counts for both."""
        record = folder.read()
        place = {"wandb_entity": self.sweep.entity or None, "wandb_project": self.sweep.project}
        if not record:
            folder.update(state="pending", wandb_id=held.run, wandb_sweep=self.sweep.id, **place)
        elif record.get("wandb_id") != held.run:
            folder.update(
                wandb_id=held.run, wandb_sweep=self.sweep.id, wandb_path=None, uploaded=False,
                **place,
            )  # fmt: skip
            (folder.path / MEMORY).unlink(missing_ok=True)

    def _visit(self, folder: Path) -> None:
        status = self.syncer.visit_one(folder)
        self._say_note(status.folder, status.note)

    def _say_note(self, folder: str, note: str) -> None:
        if note and self._notes_said.get(folder) != note:
            print(f"{folder}: not uploaded: {note}", file=sys.stderr, flush=True)
        self._notes_said[folder] = note
