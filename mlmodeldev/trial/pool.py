"""Several trials at once on one machine, without start-up, until a source has no more.

Example, inside of a Slurm job or on a laptop; enumeration::

    work = [Work(trial.id, folder, overrides=["optimizer.lr=0.003"]) for ...]
    status = run_pool(ListSource(work), slots=4, modules=["model", "datamodule"])

A trial is a fork of a process that has only imported (`mlmodeldev.trial.worker`), or a process
of its own where it needs several processes (`mlmodeldev.trial.task`) or is a foreign program
(`Work.command`). What it does to itself, a crash or running out of memory, fails it alone. On
SIGTERM, SIGUSR1, SIGUSR2 or Ctrl-C the running trials are told once, nothing new is begun, and the
status is 75.
"""

from __future__ import annotations

import contextlib
import signal
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
from mlmodeldev.trial import signals
from mlmodeldev.trial.process import TrialProcess, begin
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


def run_pool(
    source: Source,
    slots: int = 1,
    modules: Sequence[str] = ("trainer",),
    root: Path | None = None,
    on_signal: Callable[[int], None] | None = None,
) -> int:
    """Run a source's trials until it has no more.

    Args:
        source: gives trials and is told how they ended; both in this thread.
        slots: trials at once; they share cores and GPUs (`mlmodeldev.machine`).
        modules: what trials import beside torch, Lightning and the callbacks.
        root: the folder that the modules lie in; the project's own by default.
        on_signal: is told each signal that asks for an end, in the handler: to note it, no more.

    Returns:
        Exit status: 0 all ended well, 1 some failed, 75 interrupted.
    """
    from mlmodeldev.project import project_root

    place = root or project_root()
    start_server(modules, place)
    pool = _Pool(source, trial_resources(slots), on_signal, place)
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
        running = begin(self._started(work), slot, environment)
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
                running.tell()
