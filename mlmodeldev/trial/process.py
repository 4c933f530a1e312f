"""One running trial of a pool: a fork, or a process of its own.

Example::

    running = start_trial(task, slot=0, environment={"OMP_NUM_THREADS": "4"})
    running.request_stop()
    running.ended()             # None while it runs
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import own_file
from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UsageError
from mlmodeldev.lease import HEARTBEAT_SECONDS, LostLease, owned, start_ticks
from mlmodeldev.secrets import masked
from mlmodeldev.trial.agent_run import without_agent
from mlmodeldev.trial.folder import State, TrialFolder
from mlmodeldev.trial.hang import goes_on, hang_of
from mlmodeldev.trial.process_group import tell_orphans
from mlmodeldev.trial.task import TrialResult, TrialTask
from mlmodeldev.trial.worker import launch

STOP_SECONDS = 60.0
"""From asking a foreign program to stop until it is killed."""
_SERVER_GONE = 255  # what multiprocessing says when the fork server died before its child
_OF_SIGNALS = {
    status
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    for status in (-number, 128 + number)
}
"""How a command ends that dies of a request to save: of itself, or as a shell says it."""
_RECORDED = {"done": 0, "pruned": 0, "interrupted": EXIT_INTERRUPTED, "failed": 1}
"""Exit status by the state that a trial has recorded of itself."""
_STATES: dict[int, State] = {
    0: "done",
    EXIT_INTERRUPTED: "interrupted",
    -signal.SIGTERM: "interrupted",
}


def start_trial(
    work: TrialTask, slot: int, environment: dict[str, str]
) -> TrialProcess | TrialResult:
    """Start a trial; where it can't be started, record and return that as its end."""
    folder = TrialFolder(work.folder)
    try:
        if work.foreign:
            work.folder.mkdir(parents=True, exist_ok=True)
            folder.claim(patient=False)  # other trials run meanwhile
    except (UsageError, OSError) as error:  # the record is another's, or can't be written
        return TrialResult(EXIT_BAD_INPUT, "failed", str(error), 0.0)
    try:
        return TrialProcess(work, slot, environment, folder)
    except (UsageError, OSError, EOFError, ValueError) as error:
        reason = _why_not_started(work, error)
        with contextlib.suppress(UsageError, OSError, LostLease):
            if work.foreign:
                folder.finish("failed", reason)
            elif work.folder.is_dir() and not owned(folder.read()):
                folder.update(state="failed", reason=reason)
        return TrialResult(EXIT_BAD_INPUT, "failed", reason, 0.0)


def _why_not_started(work: TrialTask, error: Exception) -> str:
    if work.command is None or isinstance(error, UsageError):
        return str(error) or type(error).__name__
    why = error.strerror if isinstance(error, OSError) else str(error)
    return f"{' '.join(work.command[:1])}: can't be started: {why}"


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
        self._stop_requested = False
        self._stopped: float | None = None
        self._lost: str | None = None
        self._died: float | None = None
        self._signalled: set[int] = set()
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
        if status is None or self._is_survived(status):
            return None
        self.kill()  # what it may have left behind in its process group
        if isinstance(self.process, ForkServerProcess):
            self.process.close()
        state, reason = self._outcome(status)
        hung = self._hang()
        if hung is not None:
            status = EXIT_INTERRUPTED if hung else 1  # its kill is no kill from outside
        return TrialResult(status, state, reason, time.monotonic() - self.begun, bool(hung))

    def _is_survived(self, status: int) -> bool:
        """Whether a command has died of a signal, as a shell does, and its program goes on.

        The program is told, and has as long to end as one that was started without a shell.
        """
        if isinstance(self.process, ForkServerProcess) or status not in _OF_SIGNALS:
            return False
        self._died = self._died or time.monotonic()
        in_time = time.monotonic() - self._died < STOP_SECONDS
        return in_time and tell_orphans(self.process.pid, abs(status) % 128, self._signalled)

    def _status(self) -> int | None:
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        status = self.process.exitcode
        if status != _SERVER_GONE:
            return status
        if self._ticks is not None and start_ticks(self.process.pid or 0) == self._ticks:
            self.sentinel = None  # the server was killed, the trial goes on: ask for it instead
            return None
        # what has recorded nothing was killed with the server, and nobody knows its exit status
        return _RECORDED.get(self._recorded_state(), -signal.SIGKILL)

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
        with contextlib.suppress(UsageError, LostLease, OSError):
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

    def _hang(self) -> bool | None:
        """Return whether a trial that was ended for a hang goes on; None: it did not hang."""
        with contextlib.suppress(UsageError):
            record = self.folder.read()
            if hang_of(record) and record.get("attempts", 0) > self._attempts:
                return goes_on(record)
        return None

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
    with own_file(log).open("ab") as output:
        return subprocess.Popen(
            list(work.command),
            env={**_variables(work.command), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _variables(command: Sequence[str]) -> dict[str, str]:
    """Return this process's variables as a command is to have them.

    A job's keep the working directory from ``sys.path``, where ``-m`` would look before the copy of
    the code; of a script they would keep what lies beside it.
    """
    variables = without_agent(os.environ)
    if "-m" not in command:
        variables.pop("PYTHONSAFEPATH", None)
    return variables


_LAST_BYTES = 100_000
"""Longer than a line: of one that is cut the beginning of a key may be missing."""


def _last_line(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - _LAST_BYTES))
            lines = opened.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return masked(lines[-1], 500) if lines else ""
