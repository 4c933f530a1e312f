"""What can go wrong with a server: errors, slowness, silence, odd answers.

Example::

    server.faults.fail(503, count=3)                  # the next three requests
    server.faults.odd("html", "Heartbeat", count=2)   # see tests/wandb/odd_answers.py
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.wandb.odd_answers import ODD, Odd


@dataclass
class Faults:
    """Applied to each request before it is answered."""

    status: int = 0
    count: int = 0
    matching: str = ""
    seconds: float = 0.0
    silent: bool = False
    refused: list[str] = field(default_factory=list)
    odds: list[list[Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, status: int, count: int, matching: str = "") -> None:
        """Answer the next ``count`` requests whose path or operation matches with a status."""
        with self._lock:
            self.status, self.count, self.matching = status, count, matching

    def odd(self, name: str, matching: str, count: int) -> None:
        """Answer the next ``count`` requests that match as `odd_answers` says; each goes its way.

        Faults of this kind do not replace each other: one for each sweep is possible.
        """
        with self._lock:
            self.odds.append([name, matching, count])

    def odd_answer(self, what: str) -> Odd | None:
        """Return how to answer oddly, or None for an answer as it should be."""
        with self._lock:
            for each in self.odds:
                if each[2] > 0 and re.search(each[1], what):
                    each[2] -= 1
                    self.refused.append(what)
                    return ODD[each[0]]
        return None

    def slow(self, seconds: float) -> None:
        """Let every answer take so long."""
        self.seconds = seconds

    def clear(self) -> None:
        """Behave."""
        with self._lock:
            self.count, self.seconds, self.silent = 0, 0.0, False
            self.odds.clear()

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
