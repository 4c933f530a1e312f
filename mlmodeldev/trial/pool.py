"""Several trials at once on one machine, without start-up, until a source has no more.

Example, inside of a Slurm job or on a laptop; enumeration::

    tasks = [TrialTask(trial.id, folder, overrides=["optimizer.lr=0.003"]) for ...]
    status = run_pool(ListSource(tasks), slots=4, modules=["model", "datamodule"])

A trial is a fork of a process that has only imported (`mlmodeldev.trial.worker`), or a process
of its own where it needs several processes (`mlmodeldev.trial.task`) or is a foreign program
(`TrialTask.command`). What it does to itself, a crash or running out of memory, fails it alone. On
SIGTERM, SIGUSR1, SIGUSR2, SIGHUP or Ctrl-C the running trials are asked once to save and end,
nothing new is begun, and the status is 75.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from mlmodeldev.errors import EXIT_INTERRUPTED
from mlmodeldev.machine import trial_resources
from mlmodeldev.project import project_root
from mlmodeldev.trial import signals
from mlmodeldev.trial.agent_run import leave_agent
from mlmodeldev.trial.process import TrialProcess, start_trial
from mlmodeldev.trial.task import (
    WAIT,
    ListSource,
    Source,
    TrialResult,
    TrialTask,
    fill,
    own_command,
)
from mlmodeldev.trial.worker import start_server

__all__ = ["WAIT", "ListSource", "Source", "TrialResult", "TrialTask", "run_pool"]

POLL_SECONDS = 0.5
"""How often a source that has nothing for the moment is asked again."""
SAVE_SECONDS = 600.0
"""How long trials may take to save whose source has failed, until they are killed."""


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

    Raises:
        Exception: whatever the source raises, after the running trials were asked to save and
            have ended.
    """
    root = root or project_root()
    leave_agent()  # each trial gets its own run, or none
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
        self.running: list[TrialProcess] = []
        self.again: list[tuple[TrialTask, TrialResult]] = []  # hung, and go on from checkpoints
        self.received: list[int] = []
        self.states: dict[str, str] = {}  # of each trial that ended, as it ended last

    def run(self) -> int:
        try:
            self._run()
        except BaseException as error:
            self._end_trials(error)
            raise
        if self.received or "interrupted" in self.states.values():
            return EXIT_INTERRUPTED
        return 1 if "failed" in self.states.values() else 0

    def _run(self) -> None:
        more = True
        while more or self.running or self.again:
            self._begin_again()
            more = more and not self.received and self._fill()
            self._forward()
            waiting = more and bool(self.free)
            self._collect(POLL_SECONDS if waiting or self._must_ask() else 5.0)
            self.source.tick()

    def _end_trials(self, error: BaseException) -> None:
        """Let the running trials save and end, whose source has failed; record how they ended."""
        if not self.running:
            return
        what = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{what}; {len(self.running)} trials are to save and end", file=sys.stderr)
        deadline = time.monotonic() + SAVE_SECONDS
        while self.running:
            for running in self.running:
                running.request_stop()
                if time.monotonic() > deadline:
                    running.kill()
            for running, ended in self._ended(POLL_SECONDS):
                with contextlib.suppress(Exception):  # the source has failed once
                    self._report(running.work, ended)

    def _begin_again(self) -> None:
        """Begin those anew that hung; their source has not been told, for it they are under way."""
        while self.again and self.free:
            work, ended = self.again.pop()
            if self.received:
                self._report(work, ended)
            else:
                print(f"{work.id}  {ended.reason}; begun again", flush=True)
                self._begin(work)

    def _fill(self) -> bool:
        return fill(self.source, lambda: bool(self.free) and not self.received, self._begin)

    def _begin(self, work: TrialTask) -> None:
        slot, environment = self.free[0]
        running = start_trial(self._started(work), slot, environment)
        if isinstance(running, TrialProcess):
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
        """Wait for one to end, and report all that have; those that hung go on instead."""
        for running, ended in self._ended(seconds):
            if ended.goes_on:
                self.again.append((running.work, ended))
            else:
                self._report(running.work, ended)

    def _ended(self, seconds: float) -> Iterator[tuple[TrialProcess, TrialResult]]:
        """Wait for one to end, so long at most; yield all that have, each with its slot free."""
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
                yield running, ended

    def _report(self, work: TrialTask, ended: TrialResult) -> None:
        self.states[work.id] = self.source.report(work, ended) or ended.state

    # --- signals

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Pass signals on while the pool runs; outside of the main thread Python allows none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._handle)
            for number in signals.SIGNALS
            if not signals.is_ignored(number)
        }
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
