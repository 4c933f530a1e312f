"""W&B's early stopping: whether a trial falls behind the best 1/eta of all at a band.

Example::

    rule = Hyperband(min_iter=3, eta=3)                     # bands at 3, 9, 27, ... logged values
    verdict(rule, own, others, goal="maximize")             # None, or why it stops

The rule of W&B's server (`hyperband_stop_runs` of its `sweeps` 0.3.0): the same histories give the
same decisions (`tests/sweep/test_stopping.py`). It is no Hyperband in the sense of
Li et al. (2018): there are no brackets, and trials stop one by one, without waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

MAX_BANDS = 100


class Rule(Protocol):
    """What the rule is made of; `mlmodeldev.sweep.definition.Hyperband` is one."""

    @property
    def min_iter(self) -> int | None: ...
    @property
    def max_iter(self) -> int | None: ...
    @property
    def s(self) -> float | None: ...
    @property
    def eta(self) -> float: ...
    @property
    def strict(self) -> bool: ...


_MOST_VALUES = 10**15
"""More than any trial logs: bands beyond it are none."""


def bands(rule: Rule) -> list[int]:
    """Return the numbers of logged values after which trials are compared, in rising order.

    From ``max_iter`` they are counted down, ``s`` of them; from ``min_iter`` up.
    """
    if rule.max_iter is not None:
        falling, band = [], float(min(rule.max_iter, _MOST_VALUES))
        for _ in range(int(rule.s or 0)):
            band /= rule.eta
            if band < 1:
                break
            falling.append(int(band))
        return sorted(falling)
    rising, band = [], float(min(rule.min_iter or 1, _MOST_VALUES))
    for _ in range(MAX_BANDS):
        if band > _MOST_VALUES:
            break
        rising.append(int(band))
        band *= rule.eta
    return rising


def verdict(
    rule: Rule, own: Sequence[float], others: Iterable[Sequence[float]], goal: str
) -> str | None:
    """Return why the trial should stop, or None.

    Args:
        rule: bands and share.
        own: what the trial has logged so far, finite values only.
        others: the same of all other trials, running and ended.
        goal: ``minimize`` or ``maximize``.
    """
    reached = [band for band in bands(rule) if band <= len(own)]
    if not reached:
        return None
    band = reached[-1]
    sign = -1.0 if goal == "maximize" else 1.0
    at_band = sorted(sign * h[band - 1] for h in (own, *others) if len(h) >= band)
    threshold = at_band[int(len(at_band) * (1.0 / rule.eta))]
    value = sign * own[band - 1] if rule.strict else min(sign * v for v in own)
    if value <= threshold:
        return None
    return (
        f"hyperband: {sign * value:.6g} after {band} values is behind {sign * threshold:.6g}, the"
        f" best 1/{rule.eta:g} of {len(at_band)} trials"
    )
