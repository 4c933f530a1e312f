"""A W&B agent as a source of trials for the pool: none is lost, none begun that can't be ended.

It says to the server what ``wandb agent`` says. Otherwise it differs: it first goes on with the
trials it was interrupted in, asks for the next as soon as one ends, leaves as soon as the sweep is
over, and says what failed.

Example::

    source = AgentSource(RemoteSweep.find("team/project/ab12cd34"), fixed=["training.devices=2"])
    status = run_pool(source)
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.lease import owned
from mlmodeldev.settings.overrides import to_overrides
from mlmodeldev.slurm.agent_notes import AgentNote, AgentNotes
from mlmodeldev.sweep.loading import trial_arguments
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.sweep.starter import Start
from mlmodeldev.tracking.wandb_api import Refused, RemoteSweep, Unreachable
from mlmodeldev.tracking.wandb_stop import NOTE_VARIABLE, STOP_NOTE
from mlmodeldev.trial.folder import TrialFolder, own_path
from mlmodeldev.trial.task import WAIT, TrialResult, TrialTask, Wait

_PLACES = ("artefacts.runs_dir", "artefacts.sweep", "artefacts.trial")
"""Settings of a trial that say where it lies; the agent's, whatever the sweep says."""
BEAT_SECONDS = 5.0
"""Between two heartbeats, as ``wandb agent`` sends them."""
RENEW_SECONDS = 60.0
"""Between two renewals of an agent's notes."""
KILLS = 2
"""How often a trial that was killed from outside goes on before it counts as failed."""
MAX_SKIPPED = 200
"""So many runs in a row that the file's rules leave out, and the agent takes no more."""
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
        print_line: writes a line to the log.
        served: reads the runs' values by the rules of the sweep's file; None: made here.

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
        print_line: Callable[[str], None] = print,
        served: ServedSweep | None = None,
    ) -> None:
        self.served = served or ServedSweep(sweep.config, sweep.id)
        self.sweep, self.fixed, self.count, self.patience = sweep, list(fixed), count, patience
        self.folder = runs_dir.expanduser().absolute() / sweep.id
        self.notes = AgentNotes(self.folder, job)
        self.start, self.print_line = start, print_line
        self.why = ""
        self.failed, self.lost, self.done = 0, False, 0
        self._in_a_row = self._taken = self._skipped = 0
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
        note = self._next_interrupted()
        if note:
            self.print_line(f"going on with run {note.run}, which was interrupted")
            return self._begin(note)
        if self._in_a_row >= self.patience:
            return self._stop_taking(f"{self._in_a_row} trials in a row have failed")
        if self.count is not None and self._taken >= self.count:
            return self._stop_taking(f"{self.count} runs taken (--count)")
        if time.monotonic() < self._not_before:
            return WAIT
        return self._ask_server()

    def report(self, work: TrialTask, ended: TrialResult) -> str | None:
        """Note how a trial ended."""
        _, note, _ = self._running.pop(work.id)
        self._not_before = self._last_beat = 0.0  # the next may be asked for at once
        self.print_line(f"run {note.run}  {ended.state}{_because(ended)}  {ended.seconds:.1f} s")
        if ended.status == -signal.SIGKILL and self._killed.count(note.run) < KILLS:
            self._killed.append(note.run)
            self._waiting.append(note)  # out of memory, or someone's kill: once more from its state
            return "pending"
        if ended.state == "interrupted":
            self.interrupted.append(work.folder)
            self.notes.write(note, active=False)
            return None
        self.notes.remove(note.run)
        Path(work.environment[NOTE_VARIABLE]).unlink(missing_ok=True)
        self.failed += ended.state == "failed"
        self.done += ended.state != "failed"
        self._in_a_row = self._in_a_row + 1 if ended.state == "failed" else 0
        return None

    def tick(self) -> None:
        """Send heartbeats for the runs that are under way, and do what the server answers."""
        now = time.monotonic()
        if self._running and now - self._last_beat >= BEAT_SECONDS:
            self._last_beat = now
            for run, (agent, _, work) in list(self._running.items()):
                self._send_heartbeat(agent, run, work)
        if now - self._last_renewal >= RENEW_SECONDS:
            self._last_renewal = now
            for _, note, _ in self._running.values():
                self.notes.write(note)

    # --- the next run

    def _next_interrupted(self) -> AgentNote | None:
        """Return a run of this agent's that can go on; one whose trial still runs waits."""
        while note := self.notes.take_over():
            self._waiting.append(note)
        for note in list(self._waiting):
            record = TrialFolder(self._path(note)).read() if self._path(note).is_dir() else {}
            if owned(record):
                continue
            self._waiting.remove(note)
            if record.get("state") in ("done", "pruned") and record.get("uploaded", True):
                self.notes.remove(note.run)
                continue
            return note
        return None

    def _ask_server(self) -> TrialTask | Wait | None:
        try:
            agent = self._free_agent()
            commands = self.sweep.heartbeat(agent, [])
            self._silent_since = None
            for command in commands:
                if command["type"] in ("run", "resume"):
                    return self._accept(command)
                if command["type"] == "exit":
                    return self._stop_taking("the sweep is over")
            if self.sweep.over():
                return self._stop_taking("the sweep is over")
            return self._wait()
        except Unreachable as error:
            return self._note_silence(str(error))
        except Refused as error:
            self.lost = True
            return self._stop_taking(f"the server refuses: {error}")

    def _accept(self, command: dict[str, Any]) -> TrialTask | Wait | None:
        params = {name: entry["value"] for name, entry in command["args"].items()}
        note = AgentNote(str(command["run_id"]), params)
        if reason := self.served.refusal(params):
            return self._skip(note, reason)
        path = self._path(note)
        runs = command["type"] == "resume" and path.is_dir() and owned(TrialFolder(path).read())
        if runs or not self.notes.claim(note.run):
            self.print_line(f"run {note.run} is under way elsewhere: left alone")
            return self._wait()
        self._taken += 1
        self._skipped = 0
        return self._begin(note)

    def _skip(self, note: AgentNote, reason: str) -> Wait | None:
        """Leave a run that the file's rules leave out; the next may be asked for at once."""
        self._skipped += 1
        self.print_line(f"run {note.run} is no trial of the sweep's file: {reason}")
        if self._skipped > MAX_SKIPPED:
            return self._stop_taking(f"{MAX_SKIPPED} runs in a row are none of the file's trials")
        return WAIT

    def _begin(self, note: AgentNote) -> TrialTask:
        path = self._path(note)
        path.mkdir(parents=True, exist_ok=True)
        self.notes.write(note)
        if not (path / "trial.json").is_file():
            TrialFolder(path).update(state="pending", wandb_id=note.run, wandb_sweep=self.sweep.id)
        stop_note = path / STOP_NOTE
        stop_note.unlink(missing_ok=True)
        call, invocation = self.served.call(note.params), self.served.invocation
        settings = {name: value for name, value in call.settings.items() if name not in _PLACES}
        # Hydra's spelling is for trainers: another program's values may have none
        own = {} if invocation.is_foreign else settings
        work = TrialTask(
            note.run, path, trial_arguments(own, path, self.fixed), invocation.module,
            environment=self._environment(note, stop_note),
        )  # fmt: skip
        if self.start:
            work = self.start(work, note.params)
        self._running[note.run] = (self._free_agent_or_none(), note, work)
        values = " ".join(to_overrides(own)) or json.dumps(call.values)
        self.print_line(f"run {note.run}  {values}  in {path}")
        return work

    def _environment(self, note: AgentNote, stop_note: Path) -> dict[str, str]:
        return {
            "WANDB_RUN_ID": note.run,
            "WANDB_SWEEP_ID": self.sweep.id,
            "WANDB_PROJECT": self.sweep.project,
            "WANDB_RESUME": "allow",
            NOTE_VARIABLE: str(stop_note),
            **({"WANDB_ENTITY": self.sweep.entity} if self.sweep.entity else {}),
        }

    def _path(self, note: AgentNote) -> Path:
        return own_path(self.folder, self.served.call(note.params).settings, note.run)

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

    def _send_heartbeat(self, agent: str, run: str, work: TrialTask) -> None:
        try:
            for command in self.sweep.heartbeat(agent, [run]) if agent else ():
                if command["type"] in ("stop", "exit"):
                    self.print_line(f"run {run}: the server says {command['type']}")
                    Path(work.environment[NOTE_VARIABLE]).touch()
                if command["type"] == "exit":
                    self.why = "the sweep was cancelled"
        except (Unreachable, Refused) as error:
            print(f"heartbeat: {error}", file=sys.stderr)

    def _note_silence(self, what: str) -> TrialTask | Wait | None:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since > PATIENCE_SECONDS:
            self.lost = True
            return self._stop_taking(f"the server does not answer ({what})")
        return self._wait()

    def _wait(self) -> Wait:
        self._not_before = time.monotonic() + BEAT_SECONDS
        return WAIT

    def _stop_taking(self, why: str) -> Wait | None:
        """Take no more, once its own runs whose trials still run have been seen to."""
        if self._waiting and not self.lost:
            return self._wait()
        self.why = why
        return None


def _because(ended: TrialResult) -> str:
    return f": {ended.reason}" if ended.state == "failed" and ended.reason else ""
