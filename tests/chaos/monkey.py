"""The monkey: a deck of faults, shuffled by a seed and dealt one after the other.

The same seed deals the same faults with the same draws; when each comes, and to which of the trials
that are there, is the machine's. So a seed replays the sequence of actions and not their times.

Example::

    monkey = Monkey(scene, seed=7)
    monkey.run(lambda: all_done)
    print("\\n".join(monkey.log))
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tests.chaos import cluster_faults, outer_faults
from tests.chaos.faults import FAULTS
from tests.chaos.scene import Scene

__all__ = ["Monkey", "cluster_faults", "deck", "outer_faults"]

PATIENCE_SECONDS = 30.0
"""How long a fault waits for something to be done to."""


def deck(seed: int, count: int, kinds: Sequence[str] = ()) -> list[str]:
    """Return so many faults: each kind once in a random order, then anew."""
    draw, dealt = Random(seed), []
    while len(dealt) < count:
        kind = sorted(kinds or FAULTS)
        draw.shuffle(kind)
        dealt += kind
    return dealt[:count]


class Monkey:
    """Does it.

    Args:
        scene: to what.
        seed: of the deck and of all draws.
        kinds: names of the faults; none: all.
        meanwhile: called again and again between the faults.

    Attributes:
        log: each action in words, with the second at which it came.
        counts: how often each kind was done.
        skipped: how many faults of the deck found nothing left to be done to.
    """

    def __init__(
        self,
        scene: Scene,
        seed: int,
        kinds: Sequence[str] = (),
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self.scene, self.seed, self.meanwhile = scene, seed, meanwhile
        self.deck = deck(seed, scene.size.faults, kinds)
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        self.skipped = 0
        self._undo: list[tuple[float, Callable[[], Any]]] = []
        self._begun = time.monotonic()

    def run(self, over: Callable[[], bool]) -> None:
        """Deal the whole deck; what is left of it is skipped once all trials have ended."""
        for number, kind in enumerate(self.deck):
            draw = Random(f"{self.seed}-{number}")
            self._wait(draw.uniform(*self.scene.size.pause))
            if not self._do(kind, draw, over):
                self.skipped += 1
        self.undo_all()

    def _do(self, kind: str, draw: Random, over: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and not over():
            state = draw.getstate()
            text = FAULTS[kind](self.scene, draw, self._later)
            if text is not None:
                self.log.append(f"{time.monotonic() - self._begun:6.1f} s  {kind}: {text}")
                self.counts[kind] += 1
                return True
            draw.setstate(state)
            self._wait(0.5)
        return False

    def _later(self, seconds: float, action: Callable[[], Any]) -> None:
        self._undo.append((time.monotonic() + seconds, action))

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline:
            self._undo_due(now)
            self.meanwhile()
            time.sleep(0.1)
        self._undo_due(now)

    def _undo_due(self, now: float) -> None:
        due = [pair for pair in self._undo if pair[0] <= now]
        self._undo = [pair for pair in self._undo if pair[0] > now]
        for _, action in sorted(due, key=lambda pair: pair[0]):
            with contextlib.suppress(ProcessLookupError):
                action()

    def undo_all(self) -> None:
        """End every fault that has not ended yet."""
        self._undo_due(float("inf"))
        self.scene.server.faults.clear()
