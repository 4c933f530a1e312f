"""What can go wrong with a server: errors, slowness, silence.

Example::

    server.faults.fail(503, count=3)                  # the next three requests
    with server.faults.gone(): ...                    # nobody listens
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Faults:
    """Applied to each request before it is answered."""

    status: int = 0
    count: int = 0
    matching: str = ""
    seconds: float = 0.0
    silent: bool = False
    refused: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, status: int, count: int, matching: str = "") -> None:
        """Answer the next ``count`` requests whose path or operation matches with a status."""
        with self._lock:
            self.status, self.count, self.matching = status, count, matching

    def slow(self, seconds: float) -> None:
        """Let every answer take so long."""
        self.seconds = seconds

    def clear(self) -> None:
        """Behave."""
        with self._lock:
            self.count, self.seconds, self.silent = 0, 0.0, False

    def verdict(self, what: str) -> int:
        """Return the status to answer with, 0 for the true answer, -1 for none."""
        if self.seconds:
            time.sleep(self.seconds)
        with self._lock:
            if self.silent:
                self.refused.append(what)
                return -1
            if self.count and re.search(self.matching, what):
                self.count -= 1
                self.refused.append(what)
                return self.status
        return 0
