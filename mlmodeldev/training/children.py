"""The processes that a trial's first process starts, where no launcher does: seen out, never left.

Example::

    children = [subprocess.Popen(line)]
    atexit.register(end, children)
    wait_for(children)
"""

from __future__ import annotations

import os
import subprocess
import threading
import time


def die_with(parent: int) -> None:
    """End this process when the one that started it is gone, even by ``kill -9``."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def wait_for(children: list[subprocess.Popen[bytes]], seconds: float = 60) -> None:
    """Wait until they have ended; end those that take longer."""
    deadline = time.monotonic() + seconds
    for child in children:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()


def end(children: list[subprocess.Popen[bytes]]) -> None:
    """End those that still run."""
    for child in children:
        if child.poll() is None:
            child.kill()
