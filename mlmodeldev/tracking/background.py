"""Calls that a tracker's thread makes, so that the training loop does not wait for them.

Example::

    calls = BackgroundCalls("wandb-rows")
    calls.add(send)                 # returns at once
    calls.drain(60)                 # whether all were made within a minute
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Call = Callable[[], None]


class BackgroundCalls:
    """Make calls one after the other, in the order in which they came.

    Args:
        name: of the thread, which starts with the first call.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, call: Call) -> None:
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
