"""How fast a trial trains now, by the last rows of its ``metrics.csv``.

Example::

    last_rates(folder / "metrics.csv")        # Rates(samples=8120.5, steps=63.4)
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

SAMPLES, STEP_SECONDS = "time/samples_per_second", "time/step_seconds"
_TAIL = 1 << 16
"""Bytes at the file's end that are read: the file of a long trial is many megabytes."""


@dataclass(frozen=True)
class Rates:
    """Samples and optimizer steps a second; None: not logged lately."""

    samples: float | None = None
    steps: float | None = None


def last_rates(file: Path) -> Rates:
    """Return what a trial has logged last; without rates where nothing can be read."""
    try:
        with file.open("rb") as opened:
            columns = next(csv.reader([opened.readline().decode(errors="replace")]), [])
            begin = opened.tell()
            end = opened.seek(0, 2)
            opened.seek(max(begin, end - _TAIL))
            lines = opened.read().decode(errors="replace").split("\n")
    except (OSError, csv.Error):
        return Rates()
    whole = lines[0 if end - _TAIL <= begin else 1 : -1]  # the last may be torn
    wanted = {name: columns.index(name) for name in (SAMPLES, STEP_SECONDS) if name in columns}
    values = {name: _last(whole, place, len(columns)) for name, place in wanted.items()}
    seconds = values.get(STEP_SECONDS)
    return Rates(values.get(SAMPLES), 1 / seconds if seconds else None)


def _last(lines: list[str], place: int, columns: int) -> float | None:
    """Return the last number of a column; rows hold numbers, and so no comma but between them."""
    for line in reversed(lines):
        cells = line.split(",")
        if len(cells) == columns and (text := cells[place].strip()):
            try:
                value = float(text)
            except ValueError:
                return None
            return value if math.isfinite(value) and value > 0 else None
    return None
