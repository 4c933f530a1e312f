"""What a trial has written into its folder: its record, and what it has logged.

Example::

    read_record(Path("runs/digits/ab12cd34"))["state"]          # "done"
    history(Path("runs/digits/ab12cd34"), "val/accuracy")       # [0.31, 0.62, 0.78]
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.trial.record_types import loads, parse_record, read_text, sound_record, unreadable

STEP = "trainer/global_step"
"""The axis of W&B's charts: optimizer steps."""

_STEP_NUMBER = re.compile(r"0*[0-9]{1,15}").fullmatch
VALIDATIONS = "pruning.json"
"""Where a trial writes the metric that it is compared by, a value for each of its validations."""
TIME = "time/logged"
"""When a row was written, in seconds since 1970."""


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of the trial in a folder; an empty one where there is none.

    Entries that are not what they may be are left out, and named under ``damaged``.
    """
    try:
        record = parse_record(read_text(folder / "trial.json"))
    except OSError:
        return {}
    return unreadable() if record is None else sound_record(record)


# --- log.json: an entry an epoch


def history(folder: Path, metric: str) -> list[float]:
    """Return the finite values of a metric, one for each time that it was logged.

    ``log.json`` is read (an entry an epoch), ``metrics.csv`` where it tells nothing.
    """
    return _finite([entry.get(metric) for entry in _entries(folder)]) or _finite(
        _from_table(folder / "metrics.csv", metric)
    )


def validations(folder: Path, metric: str) -> list[float]:
    """Return the finite values of a metric, one for each validation, as the trial has counted them.

    Only a trial that is compared with others counts them (`VALIDATIONS`); of any other come those
    of `history`, one an epoch, which are the same where an epoch has one validation.
    """
    try:
        counted = loads((folder / VALIDATIONS).read_text(encoding="utf-8"))
        if counted["metric"] == metric and isinstance(counted["values"], list):
            return _finite(counted["values"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        pass
    return history(folder, metric)


def best(values: Sequence[float], goal: str) -> float | None:
    """Return the largest or smallest value, by ``maximize`` or ``minimize``; None of none.

    As on W&B, whose bayes takes the best value that a run has logged, not the last.
    """
    if not values:
        return None
    return max(values) if goal == "maximize" else min(values)


def best_entry(folder: Path, metric: str, goal: str) -> tuple[float, int] | None:
    """Return the best finite value in ``log.json`` and its epoch, from 1; None where there is none.

    Of equal values the first counts, as it does for the best weights.
    """
    pairs = [
        (value, int(epoch))
        for entry in _entries(folder)
        for value in _finite([entry.get(metric)])
        for epoch in _finite([entry.get("epoch")])
    ]
    sign = -1 if goal == "maximize" else 1
    return min(pairs, key=lambda pair: sign * pair[0], default=None)


def epoch_value(folder: Path, metric: str, epoch: int) -> float | None:
    """Return what ``log.json`` holds of a metric for an epoch, counted from 1; None: nothing."""
    values = (entry.get(metric) for entry in _entries(folder) if entry.get("epoch") == epoch)
    return next(iter(_finite(list(values))), None)


def last_entry(folder: Path) -> dict[str, Any]:
    """Return the newest entry of ``log.json``; an empty one where there is none."""
    entries = _entries(folder)
    return entries[-1] if entries else {}


def _entries(folder: Path) -> list[dict[str, Any]]:
    try:
        entries = loads((folder / "log.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _from_table(file: Path, metric: str) -> list[Any]:
    try:
        with file.open(newline="") as opened:
            return [row.get(metric) for row in csv.DictReader(opened)]
    except (OSError, ValueError, csv.Error):
        return []


def _finite(values: Sequence[Any]) -> list[float]:
    numbers = []
    for value in values:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):  # the last: an integer of 400 digits
            continue
        if math.isfinite(number):
            numbers.append(number)
    return numbers


# --- tables as CSV


def csv_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as CSV whose lines end by a newline; any text in them is read back as it was.

    Python's writer puts a cell in quotes where it holds a character of its own line end, but not
    where it holds the other one: a carriage return, which ends a line all the same.
    """
    text = io.StringIO()
    writer = csv.DictWriter(_Unix(text), columns, restval="", lineterminator="\r\n")
    writer.writerows(rows)
    return text.getvalue()


class _Unix:
    """Takes lines that end as DOS has it."""

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def write(self, line: str) -> int:
        return self._text.write(f"{line[:-2]}\n")


# --- metrics.csv: a row a step


def read_rows(file: Path) -> list[dict[str, float]]:
    """Return the file's whole rows as numbers, ``step`` among them; what is none is left out."""
    return [_numbers(row) for row in read_text_rows(file)[1]]


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in row.items()}
    except ValueError:
        return {name: float(value) for name, value in row.items() if _is_number(value)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_text_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the whole rows, as text; a torn last line is left out.

    Of a damaged file come the rows that can be read; none where it is no table at all.
    """
    if not file.is_file():
        return [], []
    text = file.read_text(encoding="utf-8", errors="replace")
    complete = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(complete))
    try:
        # under None: cells that are more than there are columns
        rows = [{k: v for k, v in row.items() if v not in ("", None) and k} for row in reader]
    except csv.Error:
        return [], []
    return list(reader.fieldnames or []), [r for r in rows if _STEP_NUMBER(r.get("step", ""))]
