"""Calls to a tracker in a thread of their own: the training loop hands them over and goes on.

The W&B client answers each call through another of its threads; on a busy machine a row takes it
ten milliseconds, of which it computes half a one. A picture is read and unpacked besides.

Example::

    sender = Sender("wandb-rows")
    sender.do(lambda: run.log(row))     # returns at once
    sender.drain(60)                    # whether all has been done by then
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Call = Callable[[], None]


class Sender:
    """Make calls one after the other, in the order in which they came.

    Args:
        name: of the thread, which starts with the first call.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, call: Call) -> None:
        """Hand over a call, which must not raise."""
        if self._thread is None:
            # a daemon: a client that hangs must not keep a trial that has ended
            self._thread = threading.Thread(target=self._work, daemon=True, name=self._name)
            self._thread.start()
        self._calls.put(call)

    def drain(self, seconds: float) -> bool:
        """Wait until all calls so far have been made; return whether they were in time."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._calls.put(done.set)
        return done.wait(seconds)

    def _work(self) -> None:
        while True:
            self._calls.get()()
