"""Rows of metrics with their steps and times, as trackers take them and ``metrics.csv`` has them.

Example::

    rows_of(folder / "metrics.csv", before=120)
    last_step(folder / "metrics.csv")       # 119
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlmodeldev.trial.record import TIME, read_rows


@dataclass(frozen=True)
class TimedRow:
    """A row of metrics, its optimizer step, and when it was logged (ms since 1970)."""

    values: Mapping[str, float]
    step: int
    milliseconds: int


def rows_of(file: Path, before: float) -> list[TimedRow]:
    """Return the rows of ``metrics.csv`` of steps below ``before``."""
    rows = []
    for values in read_rows(file):
        step, seconds = int(values.pop("step")), values.pop(TIME, 0.0)
        if step < before:
            rows.append(TimedRow(values, step, int(1000 * seconds)))
    return rows


def last_step(file: Path, before: float = math.inf) -> int:
    """Return the highest step below ``before`` in ``metrics.csv``; 0 where there is none."""
    return max((row.step for row in rows_of(file, before)), default=0)
