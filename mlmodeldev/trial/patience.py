"""How long each phase of a trial may take: learnt from the trial itself.

A phase may take three times its longest so far, and `seconds` more. Only time in which the watcher
itself ran counts, and what lies beyond the longest counts by what the trial's processes do then:
nothing, all of it; where they compute, a tenth; where the kernel works for them (state D: a slow
file system, swapping), none for six hours.

Example::

    patience = Patience(60)
    patience.tick(Phase.STEP, count=1, elapsed=1.0, activity=lambda: Activity.NONE)  # overdue?
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from mlmodeldev.trial.beats import Phase

TIMES = 3
"""A phase may take so many times its longest so far, and an attempt after a hang so many times
what the hang took: what was no hang gets past it."""
SHARE = 0.8
"""Of the seconds that are added; the rest is for looking."""
UNSEEN = 30
"""So many times the seconds for what this attempt has not seen yet, and for hooks at the ends of
epochs and validations, which may do something else each time."""
START_SECONDS = 86400.0
"""Until training begins: data may have to be downloaded and prepared."""
BLOCKED_SECONDS = 6 * 3600.0
"""For which processes in the kernel's hands are let alone."""
SEEN = 3
"""How often a phase must have been seen to be known."""
_HOOKS = {
    *(Phase.EPOCH_START, Phase.EPOCH_END, Phase.VALIDATION_START, Phase.VALIDATION_END),
    *(Phase.TEST_START, Phase.END),
}


class Activity(enum.Enum):
    """What a trial's processes do."""

    NONE = enum.auto()
    COMPUTING = enum.auto()
    BLOCKED = enum.auto()


_WEIGHTS = {Activity.NONE: 1.0, Activity.COMPUTING: 0.1}


class Patience:
    """Learn from the beats of one attempt.

    Args:
        seconds: beyond three times the longest, ``training.watchdog_seconds``.
        former: how long an earlier attempt was let hang, by phase.

    Attributes:
        lasted: for how long the present phase has lasted.
        longest: how long each phase has taken at most.
    """

    def __init__(self, seconds: float, former: Mapping[int, float] | None = None) -> None:
        self.seconds, self.former = seconds, dict(former or {})
        self.longest: dict[int, float] = {}
        self.lasted = self._counted = 0.0
        self._present = (0, 0)

    def tick(
        self,
        phase: int,
        count: int,
        elapsed: float,
        activity: Callable[[], Activity],
        expected: float = 0.0,
    ) -> bool:
        """Take note of where the trial is; return whether it has been there for too long.

        Args:
            phase, count: of the present beat.
            elapsed: since the tick before, as far as the watcher ran.
            activity: tells what the trial does; asked only where it takes longer than ever.
            expected: seconds after which the phase ends by itself.
        """
        if (phase, count) != self._present:
            former = self._present[0]
            self.longest[former] = max(self.longest.get(former, 0.0), self.lasted)
            self._present, self.lasted, self._counted = (phase, count), 0.0, 0.0
            return False
        self.lasted += elapsed
        if self.lasted <= self.longest.get(phase, 0.0):
            self._counted = self.lasted
        else:
            self._counted += elapsed * self._weight(activity())
        return self._counted > self.limit(phase, count, expected)

    def _weight(self, activity: Activity) -> float:
        return _WEIGHTS.get(activity, 0.0 if self.lasted < BLOCKED_SECONDS else 1.0)

    def limit(self, phase: int, count: int, expected: float = 0.0) -> float:
        """Return how many seconds a phase may take that has begun so many times."""
        if phase in (0, Phase.START):
            return START_SECONDS
        usual = max(self.longest.get(phase, 0.0), expected)
        seconds = TIMES * usual + SHARE * self.seconds
        completed = count - 1
        is_seen = completed >= (1 if phase == Phase.EXPORT else SEEN) or expected > 0
        if phase in _HOOKS or not is_seen:
            seconds = max(seconds, UNSEEN * self.seconds)
        return max(seconds, TIMES * self.former.get(phase, 0.0))
