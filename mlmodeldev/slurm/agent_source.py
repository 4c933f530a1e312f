"""A W&B agent as a source of the pool: warm trials, none lost, none begun that can't be ended.

It says to the server what ``wandb agent`` says. Otherwise it differs: it first goes on with the
trials it was interrupted in, asks for the next as soon as one ends, leaves as soon as the sweep is
over, and tells what failed.

Example::

    source = AgentSource(RemoteSweep.find("team/project/ab12cd34"), fixed=["training.devices=2"])
    status = run_pool(source)
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.settings.overrides import to_overrides
from mlmodeldev.slurm.agent_notes import AgentNote, AgentNotes
from mlmodeldev.sweep.starter import Start
from mlmodeldev.tracking.wandb_api import Refused, RemoteSweep, Unreachable
from mlmodeldev.tracking.wandb_stop import NOTE_VARIABLE, STOP_NOTE
from mlmodeldev.trial.folder import TrialFolder, own_path, owned
from mlmodeldev.trial.task import WAIT, TrialResult, TrialTask, Wait

BEAT_SECONDS = 5.0
"""Between two heartbeats, as ``wandb agent`` sends them."""
RENEW_SECONDS = 60.0
"""Between two renewals of an agent's notes."""
KILLS = 2
"""How often a trial that was killed from outside goes on before it counts as failed."""
PATIENCE_SECONDS = 1800.0
"""How long an agent without work waits for a server that does not answer."""


class AgentSource:
    """Give the pool the runs that a W&B sweep hands out.

    Args:
        sweep: on the server.
        runs_dir: where trials lie.
        fixed: overrides of every trial, beside those of the sweep.
        count: runs at most that this agent takes from the server; None: no limit.
        patience: failed trials in a row after which it takes no more; the machine may be broken.
        start: changes how a trial is started (`srun`, the sweep's own command); None: as a fork.
        job: what names this agent again after a requeue.
        say: writes a line to the log.

    Attributes:
        why: why it takes no more, in words.
        failed: how many of its trials failed.
        interrupted: folders of the trials that saved to go on later.
        lost: whether it left for a server that did not answer or a sweep that is not there.
    """

    def __init__(
        self,
        sweep: RemoteSweep,
        runs_dir: Path,
        fixed: Sequence[str] = (),
        count: int | None = None,
        patience: int = 3,
        start: Start | None = None,
        job: str | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.sweep, self.fixed, self.count, self.patience = sweep, list(fixed), count, patience
        self.folder = runs_dir.expanduser().absolute() / sweep.id
        self.notes = AgentNotes(self.folder, job)
        self.start, self.say = start, say
        self.why = ""
        self.failed, self.lost, self.done = 0, False, 0
        self._in_a_row = self._taken = 0
        self._agents: list[str] = []
        self._running: dict[str, tuple[str, AgentNote, TrialTask]] = {}
        self._waiting: list[AgentNote] = []
        self._not_before = self._last_beat = self._last_renewal = 0.0
        self._silent_since: float | None = None
        self._killed: list[str] = []
        self.interrupted: list[Path] = []

    # --- the pool's questions

    def take(self) -> TrialTask | Wait | None:
        """Return the next trial: its own first, then the server's."""
        if self.why:
            return None
        held = self._own()
        if held:
            self.say(f"going on with run {held.run}, which was interrupted")
            return self._begin(held)
        if self._in_a_row >= self.patience:
            return self._leave(f"{self._in_a_row} trials in a row have failed")
        if self.count is not None and self._taken >= self.count:
            return self._leave(f"{self.count} runs taken (--count)")
        if time.monotonic() < self._not_before:
            return WAIT
        return self._ask()

    def report(self, work: TrialTask, ended: TrialResult) -> str | None:
        """Note how a trial ended."""
        _, held, _ = self._running.pop(work.id)
        self._not_before = self._last_beat = 0.0  # the next may be asked for at once
        self.say(f"run {held.run}  {ended.state}{_because(ended)}  {ended.seconds:.1f} s")
        if ended.status == -signal.SIGKILL and self._killed.count(held.run) < KILLS:
            self._killed.append(held.run)
            self._waiting.append(held)  # out of memory, or someone's kill: once more from its state
            return "pending"
        if ended.state == "interrupted":
            self.interrupted.append(work.folder)
            self.notes.write(held, active=False)
            return None
        self.notes.remove(held.run)
        Path(work.environment[NOTE_VARIABLE]).unlink(missing_ok=True)
        self.failed += ended.state == "failed"
        self.done += ended.state != "failed"
        self._in_a_row = self._in_a_row + 1 if ended.state == "failed" else 0
        return None

    def tick(self) -> None:
        """Send heartbeats for the runs that are under way, and do what is told of them."""
        now = time.monotonic()
        if self._running and now - self._last_beat >= BEAT_SECONDS:
            self._last_beat = now
            for run, (agent, _, work) in list(self._running.items()):
                self._beat(agent, run, work)
        if now - self._last_renewal >= RENEW_SECONDS:
            self._last_renewal = now
            for _, held, _ in self._running.values():
                self.notes.write(held)

    # --- parts

    def _own(self) -> AgentNote | None:
        """Return a run of this agent's that can go on; one that lives on elsewhere waits."""
        while found := self.notes.take_over():
            self._waiting.append(found)
        for held in list(self._waiting):
            record = TrialFolder(self._path(held)).read() if self._path(held).is_dir() else {}
            if owned(record):
                continue
            self._waiting.remove(held)
            if record.get("state") in ("done", "pruned") and record.get("uploaded", True):
                self.notes.remove(held.run)
                continue
            return held
        return None

    def _ask(self) -> TrialTask | Wait | None:
        try:
            agent = self._free_agent()
            commands = self.sweep.heartbeat(agent, [])
            self._silent_since = None
            for command in commands:
                if command["type"] in ("run", "resume"):
                    return self._obey(command)
                if command["type"] == "exit":
                    return self._leave("the sweep is over")
            if self.sweep.over():
                return self._leave("the sweep is over")
            return self._later()
        except Unreachable as error:
            return self._silence(str(error))
        except Refused as error:
            self.lost = True
            return self._leave(f"the server refuses: {error}")

    def _obey(self, command: dict[str, Any]) -> TrialTask | Wait:
        params = {name: entry["value"] for name, entry in command["args"].items()}
        held = AgentNote(str(command["run_id"]), params)
        path = self._path(held)
        runs = command["type"] == "resume" and path.is_dir() and owned(TrialFolder(path).read())
        if runs or not self.notes.claim(held.run):
            self.say(f"run {held.run} is under way elsewhere: left alone")
            return self._later()
        self._taken += 1
        return self._begin(held)

    def _begin(self, held: AgentNote) -> TrialTask:
        path = self._path(held)
        path.mkdir(parents=True, exist_ok=True)
        self.notes.write(held)
        if not (path / "trial.json").is_file():
            TrialFolder(path).update(state="pending", wandb_id=held.run, wandb_sweep=self.sweep.id)
        stop_note = path / STOP_NOTE
        stop_note.unlink(missing_ok=True)
        where = {
            "artefacts.runs_dir": str(self.folder.parent),
            "artefacts.sweep": self.sweep.id,
            "artefacts.trial": path.name,
        }
        params = {name: value for name, value in held.params.items() if name not in where}
        overrides = [*self.fixed, *to_overrides(params), *to_overrides(where)]
        environment = {
            "WANDB_RUN_ID": held.run,
            "WANDB_SWEEP_ID": self.sweep.id,
            "WANDB_PROJECT": self.sweep.project,
            "WANDB_RESUME": "allow",
            NOTE_VARIABLE: str(stop_note),
            **({"WANDB_ENTITY": self.sweep.entity} if self.sweep.entity else {}),
        }
        work = TrialTask(held.run, path, overrides, environment=environment)
        if self.start:
            work = self.start(work, held.params)
        self._running[held.run] = (self._free_agent_or_none(), held, work)
        self.say(f"run {held.run}  {' '.join(to_overrides(params))}  in {path}")
        return work

    def _path(self, held: AgentNote) -> Path:
        return own_path(self.folder, {**held.params}, held.run)

    def _free_agent(self) -> str:
        """Return an agent without a run: the server knows one run at a time of each."""
        busy = {agent for agent, _, _ in self._running.values()}
        for agent in self._agents:
            if agent not in busy:
                return agent
        self._agents.append(self.sweep.register())
        return self._agents[-1]

    def _free_agent_or_none(self) -> str:
        try:
            return self._free_agent()
        except (Unreachable, Refused):
            return ""  # a trial of one's own goes on without the server

    def _beat(self, agent: str, run: str, work: TrialTask) -> None:
        try:
            for command in self.sweep.heartbeat(agent, [run]) if agent else ():
                if command["type"] in ("stop", "exit"):
                    self.say(f"run {run}: the server says {command['type']}")
                    Path(work.environment[NOTE_VARIABLE]).touch()
                if command["type"] == "exit":
                    self.why = "the sweep was cancelled"
        except (Unreachable, Refused) as error:
            print(f"heartbeat: {error}", file=sys.stderr)

    def _silence(self, what: str) -> TrialTask | Wait | None:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since > PATIENCE_SECONDS:
            self.lost = True
            return self._leave(f"the server does not answer ({what})")
        return self._later()

    def _later(self) -> Wait:
        self._not_before = time.monotonic() + BEAT_SECONDS
        return WAIT

    def _leave(self, why: str) -> Wait | None:
        """Take no more, once the runs of one's own that live on elsewhere have been seen to."""
        if self._waiting and not self.lost:
            return self._later()
        self.why = why
        return None


def _because(ended: TrialResult) -> str:
    return f": {ended.reason}" if ended.state == "failed" and ended.reason else ""


def job_name() -> str | None:
    """Return what names this Slurm job through requeues: its number, or array and task."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    return os.environ.get("SLURM_JOB_ID")
