"""A W&B agent as a source of trials for the pool: none is lost, none begun that can't be ended.

It says to the server what ``wandb agent`` says. Otherwise it differs: it first goes on with the
trials it was interrupted in, asks for the next as soon as one ends, leaves as soon as the sweep is
over, and says what failed. No answer of the server ends it while a trial is under way, and a run
that can't be begun fails alone.

Example::

    source = AgentSource(RemoteSweep.find("team/project/ab12cd34"), fixed=["training.devices=2"])
    status = run_pool(source)
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.lease import owned
from mlmodeldev.settings.overrides import to_overrides
from mlmodeldev.slurm.agent_channel import AgentChannel, Answer
from mlmodeldev.slurm.agent_notes import AgentNote, AgentNotes
from mlmodeldev.sweep.loading import trial_arguments
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.sweep.starter import Start
from mlmodeldev.tracking.bounded import Unreachable
from mlmodeldev.tracking.sweep_commands import Command, values_of
from mlmodeldev.tracking.wandb_api import NO_ANSWER, RemoteSweep
from mlmodeldev.tracking.wandb_stop import NOTE_VARIABLE, STOP_NOTE
from mlmodeldev.trial.agent_run import run_variables
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.place import own_path
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
"""How long an agent without work waits for a server that does not answer, or a full disk."""
DISK_SECONDS = 15.0
"""After a run that could not be begun or recorded, until the next one is tried."""
REFUSAL_SECONDS = 60.0
"""How long one that refuses: a key that is gone, a sweep that was deleted."""


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
        self._channel = AgentChannel(sweep, _print_error)
        self._running: dict[str, tuple[AgentNote, TrialTask]] = {}
        self._waiting: list[AgentNote] = []
        self._not_before = self._last_beat = self._last_renewal = 0.0
        self._paused_until = 0.0
        self._since: dict[str, float] = {}  # what is out of order: the server, the disk
        self._killed: list[str] = []
        self.interrupted: list[Path] = []

    # --- the pool's questions

    def take(self) -> TrialTask | Wait | None:
        """Return the next trial: its own first, then the server's."""
        if self.why or time.monotonic() < self._paused_until:
            return None if self.why else WAIT
        note = self._next_interrupted()
        if note:
            self.print_line(f"going on with run {note.run}, which was interrupted")
            return self._start_run(note)
        if self._in_a_row >= self.patience:
            return self._stop_taking(f"{self._in_a_row} trials in a row have failed")
        if self.count is not None and self._taken >= self.count:
            return self._stop_taking(f"{self.count} runs taken (--count)")
        if time.monotonic() < self._not_before:
            return WAIT
        return self._ask_server()

    def report(self, work: TrialTask, ended: TrialResult) -> str | None:
        """Note how a trial ended."""
        note, _ = self._running.pop(work.id)
        self._channel.release(note.run)
        self._not_before = self._last_beat = 0.0  # the next may be asked for at once
        self.print_line(f"run {note.run}  {ended.state}{_because(ended)}  {ended.seconds:.1f} s")
        killed = ended.status == -signal.SIGKILL
        unended = self._record(note).get("state") in ("pending", "running")
        unrecorded = unended and ended.state == "failed" and not killed  # a full disk is no fault
        if (killed or unrecorded) and self._killed.count(note.run) < KILLS:
            self._killed.append(note.run)
            self._waiting.append(note)  # out of memory, or someone's kill: once more from its state
            self._paused_until = time.monotonic() + DISK_SECONDS if unrecorded else 0.0
            return "pending"
        if ended.state == "interrupted":
            self.interrupted.append(work.folder)
            with self._keeping_notes():
                self.notes.write(note, active=False)
            return None
        self._remove_note(note)
        with self._keeping_notes():
            Path(work.environment[NOTE_VARIABLE]).unlink(missing_ok=True)
        self._count(failed=ended.state == "failed")
        return None

    def tick(self) -> None:
        """Send heartbeats for the runs that are under way, and do what the server answers."""
        now = time.monotonic()
        if now - self._last_beat >= BEAT_SECONDS:
            self._last_beat = now
            for run in self._running:
                self._channel.send_heartbeat(run)
        for run, commands in self._channel.heartbeat_answers():
            self._follow(run, commands)
        if now - self._last_renewal >= RENEW_SECONDS:
            self._last_renewal = now
            for note, _ in self._running.values():
                with self._keeping_notes():
                    self.notes.write(note)

    def close(self) -> None:
        """Keep a run that the server has given and that was not begun, for whoever comes next."""
        for note in self._waiting:
            with self._keeping_notes():
                self.notes.write(note, active=False)
        answer = self._channel.last_answer()
        for command in answer.commands if answer else ():
            with contextlib.suppress(ValueError):
                if command.begins:
                    note = self._note_of(command)
                    if self.notes.claim(note.run):
                        self.notes.write(note, active=False)

    def _count(self, failed: bool) -> None:
        self.failed += failed
        self.done += not failed
        self._in_a_row = self._in_a_row + 1 if failed else 0

    @contextlib.contextmanager
    def _keeping_notes(self) -> Iterator[None]:
        """Go on where a note can't be written for the moment: a disk is full, a server away."""
        try:
            yield
        except (UsageError, OSError) as error:
            self._channel.print_trouble(f"an agent's note: {error}")

    def _remove_note(self, note: AgentNote) -> None:
        with self._keeping_notes():
            self.notes.remove(note.run)

    # --- the next run

    def _next_interrupted(self) -> AgentNote | None:
        """Return a run of this agent's that can go on; one whose trial still runs waits."""
        while note := self.notes.take_over():
            self._waiting.append(note)
        for note in list(self._waiting):
            record = self._record(note)
            if owned(record):
                continue
            self._waiting.remove(note)
            if record.get("state") in ("done", "pruned") and record.get("uploaded", True):
                self._remove_note(note)
                continue
            return note
        return None

    def _record(self, note: AgentNote) -> dict[str, Any]:
        """Return the record of a run's trial; an empty one where there is none to be read."""
        with contextlib.suppress(Exception):  # what is wrong with it its start will say
            return TrialFolder(self._path(note)).read()
        return {}

    def _ask_server(self) -> TrialTask | Wait | None:
        try:
            answer = self._channel.next_answer()
        except Unreachable as error:
            self._channel.print_trouble(str(error))
            return self._endure(
                "silence", PATIENCE_SECONDS, f"the server does not answer ({error})"
            )
        except NO_ANSWER as error:
            self._channel.print_trouble(str(error))
            return self._endure("refusal", REFUSAL_SECONDS, f"the server refuses: {error}")
        if answer is None:
            return WAIT
        self._since = {k: since for k, since in self._since.items() if k == "disk"}
        self._channel.print_end_of_trouble()
        for command in answer.commands:
            if command.begins:
                return self._accept(command, answer)
            if command.type == "exit":
                return self._stop_taking("the sweep is over")
        return self._stop_taking("the sweep is over") if answer.over else self._wait()

    def _accept(self, command: Command, answer: Answer) -> TrialTask | Wait | None:
        run = str(command.run_id)
        note, trouble = AgentNote(run), ""
        try:
            note = self._note_of(command)
            left_out = self.served.refusal(note.params)
        except (ValueError, UsageError) as error:
            trouble, left_out = str(error), None
        if left_out:
            self._channel.bind(run, answer.agent)
            return self._skip(note, left_out)
        record = {} if trouble or command.type == "run" else self._record(note)
        self._channel.bind(run, answer.agent)
        if owned(record) or not self.notes.claim(run):
            self._channel.release(run)
            self.print_line(f"run {run} is under way in another agent: left alone")
            return self._wait()
        self._taken += 1
        self._skipped = 0
        return self._fail(note, trouble) if trouble else self._start_run(note)

    def _skip(self, note: AgentNote, reason: str) -> Wait | None:
        """Leave a run that the file's rules leave out; the next may be asked for at once."""
        self._channel.release(note.run)
        self._skipped += 1
        self.print_line(f"run {note.run} is no trial of the sweep's file: {reason}")
        if self._skipped > MAX_SKIPPED:
            return self._stop_taking(f"{MAX_SKIPPED} runs in a row are none of the file's trials")
        return WAIT

    def _note_of(self, command: Command) -> AgentNote:
        """Return what a command begins: as an agent has noted it before, else as it says.

        Raises:
            ValueError: the server gives no usable values.
        """
        run = str(command.run_id)
        noted = self.notes.params_of(run) if command.type == "resume" else None
        return AgentNote(run, noted or values_of(command, self.sweep.parameters))

    def _start_run(self, note: AgentNote) -> TrialTask | Wait | None:
        """Begin a run; one that can't be fails alone, and keeps no agent from the next."""
        try:
            work = self._task(note)
            self._begin(note, work)
        except Exception as error:
            if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
                return self._put_off(note, error)  # of this machine, not of the run
            return self._fail(note, str(error) or type(error).__name__)
        self._since.pop("disk", None)
        return work

    def _put_off(self, note: AgentNote, error: Exception) -> Wait | None:
        """Keep a run for later that can't be begun here for now: a disk is full, or away."""
        self._waiting.append(note)
        self.print_line(f"run {note.run} can't be begun yet: {error}")
        self._paused_until = time.monotonic() + DISK_SECONDS
        return self._endure("disk", PATIENCE_SECONDS, f"no run can be begun here: {error}")

    def _task(self, note: AgentNote) -> TrialTask:
        """Return the trial of a run, from its values alone."""
        path = self._path(note)
        stop_note = path / STOP_NOTE
        place = self.sweep.entity, self.sweep.project, self.sweep.id
        environment = run_variables(*place, note.run, str(stop_note))
        overrides = trial_arguments(self._settings(note), path, self.fixed)
        module = self.served.invocation.module
        work = TrialTask(note.run, path, overrides, module, environment=environment)
        return self.start(work, note.params) if self.start else work

    def _settings(self, note: AgentNote) -> dict[str, Any]:
        """Return a run's values as settings; none for another program, which has no spelling."""
        if self.served.invocation.is_foreign:
            return {}
        settings = self.served.call(note.params).settings
        return {name: value for name, value in settings.items() if name not in _PLACES}

    def _begin(self, note: AgentNote, work: TrialTask) -> None:
        path = work.folder
        path.mkdir(parents=True, exist_ok=True)
        self.notes.write(note)
        if not (path / "trial.json").is_file():
            TrialFolder(path).update(state="pending", wandb_id=note.run, wandb_sweep=self.sweep.id)
        (path / STOP_NOTE).unlink(missing_ok=True)
        self._running[note.run] = (note, work)
        self.print_line(f"run {note.run}  {self._shown(note)}  in {path}")

    def _shown(self, note: AgentNote) -> str:
        """Return a run's values for the log."""
        settings = " ".join(to_overrides(self._settings(note)))
        return settings or json.dumps(self.served.call(note.params).values, default=str)

    def _fail(self, note: AgentNote, reason: str) -> Wait:
        """Note that a run can't be begun, where `sync` and people find it; go on with the next."""
        self._channel.release(note.run)
        self.print_line(f"run {note.run}  failed: {reason}")
        with contextlib.suppress(Exception):
            folder = TrialFolder(self._folder_of_failure(note))
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.update(
                state="failed", reason=reason, wandb_id=note.run, wandb_sweep=self.sweep.id,
                wandb_entity=self.sweep.entity or None, wandb_project=self.sweep.project,
            )  # fmt: skip
        self._remove_note(note)
        self._count(failed=True)
        self._not_before = 0.0
        return WAIT

    def _folder_of_failure(self, note: AgentNote) -> Path:
        """Return the trial's folder, or one of the run's own where that can't be said or used."""
        with contextlib.suppress(Exception):
            path = self._path(note)
            if note.params and TrialFolder(path).read().get("wandb_id") in (None, note.run):
                return path
        return self.folder / note.run

    def _path(self, note: AgentNote) -> Path:
        return own_path(self.folder, self.served.call(note.params).settings, note.run)

    def _follow(self, run: str, commands: Sequence[Command]) -> None:
        """Do what the server says of a run that is under way."""
        if run not in self._running:
            return
        _, work = self._running[run]
        for command in commands:
            if command.type in ("stop", "exit") and command.run_id in (None, run):
                self.print_line(f"run {run}: the server says {command.type}")
                with self._keeping_notes():
                    Path(work.environment[NOTE_VARIABLE]).touch()
            if command.type == "exit":
                self.why = "the sweep was cancelled"

    def _endure(self, kind: str, seconds: float, why: str) -> Wait | None:
        """Wait while something is out of order; when it has been for so long, take no more."""
        since = self._since.setdefault(kind, time.monotonic())
        if time.monotonic() - since <= seconds:
            return self._wait()
        self.lost = True
        return self._stop_taking(why)

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


def _print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
