"""Several trials at once on one machine, without start-up, until a source has no more.

Example, inside of a Slurm job or on a laptop; enumeration::

    tasks = [TrialTask(trial.id, folder, overrides=["optimizer.lr=0.003"]) for ...]
    status = run_pool(ListSource(tasks), slots=4, modules=["model", "datamodule"])

A trial is a fork of a process that has only imported (`mlmodeldev.trial.worker`), or a process
of its own where it needs several processes (`mlmodeldev.trial.task`) or is a foreign program
(`TrialTask.command`). What it does to itself, a crash or running out of memory, fails it alone. On
SIGTERM, SIGUSR1, SIGUSR2 or Ctrl-C the running trials are asked once to save and end, nothing new
is begun, and the status is 75.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UsageError
from mlmodeldev.lease import HEARTBEAT_SECONDS, LostLease, start_ticks
from mlmodeldev.machine import trial_resources
from mlmodeldev.project import project_root
from mlmodeldev.trial import signals
from mlmodeldev.trial.folder import State, TrialFolder
from mlmodeldev.trial.task import (
    WAIT,
    ListSource,
    Source,
    TrialResult,
    TrialTask,
    fill,
    own_command,
)
from mlmodeldev.trial.worker import launch, start_server

__all__ = ["WAIT", "ListSource", "Source", "TrialResult", "TrialTask", "run_pool"]

POLL_SECONDS = 0.5
"""How often a source that has nothing for the moment is asked again."""
STOP_SECONDS = 60.0
"""From asking a foreign program to stop until it is killed."""
_SERVER_GONE = 255  # what multiprocessing says when the fork server died before its child
_STATES: dict[int, State] = {
    0: "done",
    EXIT_INTERRUPTED: "interrupted",
    -signal.SIGTERM: "interrupted",
}


def run_pool(
    source: Source,
    slots: int = 1,
    modules: Sequence[str] = ("trainer",),
    root: Path | None = None,
    on_signal: Callable[[int], None] | None = None,
) -> int:
    """Run a source's trials until it has no more.

    Args:
        source: gives trials and takes note of how they ended; both in this thread.
        slots: trials at once; they share cores and GPUs (`mlmodeldev.machine`).
        modules: what trials import beside torch, Lightning and the callbacks.
        root: the folder that the modules lie in; the project's own by default.
        on_signal: called with each signal that asks for an end, in the handler: to note it, no
            more.

    Returns:
        Exit status: 0 all ended well, 1 some failed, 75 interrupted.
    """
    root = root or project_root()
    start_server(modules, root)
    pool = _Pool(source, trial_resources(slots), on_signal, root)
    with pool.listening():
        return pool.run()


class _Pool:
    def __init__(
        self,
        source: Source,
        environments: list[dict[str, str]],
        on_signal: Callable[[int], None] | None,
        root: Path,
    ) -> None:
        self.source, self.on_signal, self.root = source, on_signal, root
        self.free = deque(enumerate(environments))
        self.running: list[_TrialProcess] = []
        self.received: list[int] = []
        self.states: dict[str, str] = {}  # of each trial that ended, as it ended last

    def run(self) -> int:
        more = True
        while more or self.running:
            more = more and not self.received and self._fill()
            self._forward()
            waiting = more and bool(self.free)
            self._collect(POLL_SECONDS if waiting or self._must_ask() else 5.0)
            self.source.tick()
        if self.received or "interrupted" in self.states.values():
            return EXIT_INTERRUPTED
        return 1 if "failed" in self.states.values() else 0

    def _fill(self) -> bool:
        return fill(self.source, lambda: bool(self.free) and not self.received, self._begin)

    def _begin(self, work: TrialTask) -> None:
        slot, environment = self.free[0]
        running = _start_trial(self._started(work), slot, environment)
        if isinstance(running, _TrialProcess):
            self.free.popleft()
            self.running.append(running)
        else:
            self._report(work, running)

    def _started(self, work: TrialTask) -> TrialTask:
        """Return the trial with how it is started: as a fork, or by a command."""
        command = work.command or own_command(work, self.root)
        return work if command is work.command else replace(work, command=command)

    def _must_ask(self) -> bool:
        return any(running.sentinel is None for running in self.running)

    def _collect(self, seconds: float) -> None:
        """Wait for one to end, and report all that have."""
        sentinels = [r.sentinel for r in self.running if r.sentinel is not None]
        if sentinels:
            connection.wait(sentinels, seconds)
        else:
            time.sleep(min(seconds, POLL_SECONDS))
        for running in list(self.running):
            running.tick()
            ended = running.ended()
            if ended is not None:
                self.running.remove(running)
                self.free.append((running.slot, running.environment))
                self._report(running.work, ended)

    def _report(self, work: TrialTask, ended: TrialResult) -> None:
        self.states[work.id] = self.source.report(work, ended) or ended.state

    # --- signals

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Pass signals on while the pool runs; outside of the main thread Python allows none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in signals.SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, signum: int, frame: Any) -> None:
        second_ctrl_c = signum == signal.SIGINT and signal.SIGINT in self.received
        self.received.append(signum)
        if self.on_signal:
            self.on_signal(signum)
        self._forward()
        if second_ctrl_c:
            for running in self.running:
                running.kill()

    def _forward(self) -> None:
        if self.received:
            for running in self.running:
                running.request_stop()


def _start_trial(
    work: TrialTask, slot: int, environment: dict[str, str]
) -> _TrialProcess | TrialResult:
    """Start a trial; where it can't be started, return that as its end."""
    try:
        folder = TrialFolder(work.folder)
        if work.foreign:
            work.folder.mkdir(parents=True, exist_ok=True)
            folder.claim(patient=False)  # other trials run meanwhile
        return _TrialProcess(work, slot, environment, folder)
    except (UsageError, OSError) as error:
        return TrialResult(EXIT_BAD_INPUT, "failed", str(error), 0.0)


class _TrialProcess:
    """One running trial.

    Attributes:
        sentinel: becomes readable when the process ends; None where it must be asked.
    """

    def __init__(
        self, work: TrialTask, slot: int, environment: dict[str, str], folder: TrialFolder
    ) -> None:
        self.work, self.slot, self.environment, self.folder = work, slot, environment, folder
        self.begun = self._last_beat = time.monotonic()
        self._attempts = self._attempts_now()
        self._stop_requested = False
        self._stopped: float | None = None
        self._lost: str | None = None
        log = work.folder / "log.txt"
        own = {**environment, **work.environment}
        self.process: ForkServerProcess | subprocess.Popen[bytes]
        if work.command is None:
            self.process = launch(work.program, work.overrides, log, own)
            self.sentinel: int | None = self.process.sentinel
        else:
            self.process = _start_command(work, log, own)
            self.sentinel = None
        self._ticks = start_ticks(self.process.pid or 0)

    def request_stop(self) -> None:
        """Ask the trial to save its state and end; once."""
        if not self._stop_requested:
            self._stop_requested = True
            self._signal(self.work.telling)

    def kill(self) -> None:
        """End the trial and all that it has started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid or 0, number)

    def tick(self) -> None:
        """Renew the lease of a program that does not do so itself; end it if that was asked."""
        if self.work.stop_file and self.work.stop_file.exists():
            self._stop()
        if self.work.foreign and time.monotonic() - self._last_beat > HEARTBEAT_SECONDS:
            self._last_beat = time.monotonic()
            try:
                self.folder.heartbeat()
            except LostLease as error:
                self._lost = str(error)
                self.kill()
            except UsageError:
                pass  # a full disk, or the like: the trial may still end well

    def _stop(self) -> None:
        if self._stopped is None:
            self._stopped = time.monotonic()
            self.request_stop()
        elif time.monotonic() - self._stopped > STOP_SECONDS:
            self.kill()

    def ended(self) -> TrialResult | None:
        """Return how the trial ended, or None while it runs."""
        status = self._status()
        if status is None:
            return None
        self.kill()  # what it may have left behind in its process group
        if isinstance(self.process, ForkServerProcess):
            self.process.close()
        state, reason = self._outcome(status)
        return TrialResult(status, state, reason, time.monotonic() - self.begun)

    def _status(self) -> int | None:
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        status = self.process.exitcode
        if status != _SERVER_GONE:
            return status
        if self._ticks is not None and start_ticks(self.process.pid or 0) == self._ticks:
            self.sentinel = None  # the server was killed, the trial goes on: ask for it instead
            return None
        return {"done": 0, "pruned": 0, "interrupted": EXIT_INTERRUPTED}.get(
            self._recorded_state(), 1
        )

    def _recorded_state(self) -> str:
        with contextlib.suppress(UsageError):
            return str(self.folder.read().get("state", "missing"))
        return "missing"

    def _outcome(self, status: int) -> tuple[State, str | None]:
        """Return state and reason; write them where the trial had no time to."""
        state: State = _STATES.get(status, "failed")
        reason = None if state == "done" else self._reason(status)
        if self._stopped is not None:
            state, reason = "pruned", "stopped by W&B"
        if self._lost is not None:
            return "failed", self._lost
        with contextlib.suppress(UsageError, LostLease):
            if self.work.foreign:
                self.folder.finish(state, reason)
            else:
                self._mark_failed(status, state, reason)
            record = self.folder.read()
            if status == 0 and record:
                state = record["state"]
            elif self._saved(record):
                state = "interrupted"
            reason = record.get("reason") or reason
        return state, reason

    def _attempts_now(self) -> int:
        with contextlib.suppress(UsageError):
            return int(self.folder.read().get("attempts", 0))
        return 0

    def _saved(self, record: dict[str, Any]) -> bool:
        """Whether this attempt has saved to go on later, whatever the status says.

        Of several ranks the first one's exit makes ``srun`` kill those that are still on their
        way out, and its status is then theirs.
        """
        return record.get("state") == "interrupted" and record.get("attempts", 0) > self._attempts

    def _mark_failed(self, status: int, state: State, reason: str | None) -> None:
        if status == 0:  # a trial that ends well has said so
            state, reason = "failed", "ended before its time, with exit status 0"
        self.folder.mark_failed(state, reason)

    def _reason(self, status: int) -> str:
        if status == -signal.SIGKILL:
            return "killed (SIGKILL; the usual cause is a lack of memory)"
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        line = _last_line(self.work.folder / "log.txt") if status == EXIT_BAD_INPUT else ""
        return line or f"exit status {status}"


def _start_command(
    work: TrialTask, log: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    assert work.command is not None
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(work.command),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _last_line(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 2000))
            lines = opened.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:500] if lines else ""
