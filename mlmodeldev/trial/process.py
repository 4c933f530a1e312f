"""A trial that runs in a slot of the pool: its process, and what its end means.

Example::

    running = begin(work, slot=0, environment={})
    running.tell()              # SIGTERM, or what the work asks for; once
    running.ended()             # None while it runs, then how it ended
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UsageError
from mlmodeldev.trial.folder import HEARTBEAT_SECONDS, State, TrialFolder, start_ticks
from mlmodeldev.trial.task import TrialResult, TrialTask
from mlmodeldev.trial.worker import launch

STOP_SECONDS = 60.0
"""From asking a foreign program to stop until it is killed."""
_SERVER_GONE = 255  # what multiprocessing says when the fork server died before its child
_STATES: dict[int, State] = {
    0: "done",
    EXIT_INTERRUPTED: "interrupted",
    -signal.SIGTERM: "interrupted",
}


def begin(work: TrialTask, slot: int, environment: dict[str, str]) -> TrialProcess | TrialResult:
    """Start a trial; where it can't be started, return that as its end."""
    try:
        folder = TrialFolder(work.folder)
        if work.foreign:
            work.folder.mkdir(parents=True, exist_ok=True)
            folder.claim(patient=False)  # other trials run meanwhile
        return TrialProcess(work, slot, environment, folder)
    except (UsageError, OSError) as error:
        return TrialResult(EXIT_BAD_INPUT, "failed", str(error), 0.0)


class TrialProcess:
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
        self._told = False
        self._stopped: float | None = None
        log = work.folder / "log.txt"
        own = {**environment, **work.environment}
        self.process: ForkServerProcess | subprocess.Popen[bytes]
        if work.command is None:
            self.process = launch(work.program, work.overrides, log, own)
            self.sentinel: int | None = self.process.sentinel
        else:
            self.process = _start(work, log, own)
            self.sentinel = None
        self._ticks = start_ticks(self.process.pid or 0)

    def tell(self) -> None:
        """Ask the trial to save its state and end; once."""
        if not self._told:
            self._told = True
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
            with contextlib.suppress(UsageError):
                self.folder.heartbeat()

    def _stop(self) -> None:
        if self._stopped is None:
            self._stopped = time.monotonic()
            self.tell()
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
        state, reason = self._settle(status)
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
        return {"done": 0, "pruned": 0, "interrupted": EXIT_INTERRUPTED}.get(self._recorded(), 1)

    def _recorded(self) -> str:
        with contextlib.suppress(UsageError):
            return str(self.folder.read().get("state", "missing"))
        return "missing"

    def _settle(self, status: int) -> tuple[State, str | None]:
        """Return state and reason; write them where the trial had no time to."""
        state: State = _STATES.get(status, "failed")
        reason = None if state == "done" else self._reason(status)
        if self._stopped is not None:
            state, reason = "pruned", "stopped by W&B"
        with contextlib.suppress(UsageError):
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
        said = _last_line(self.work.folder / "log.txt")
        return said if status == EXIT_BAD_INPUT and said else f"exit status {status}"


def _start(work: TrialTask, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
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
