"""A sweep's results as one table: a row a trial, replicates together, failures with their reason.

Example::

    results = collect(entries, "val/accuracy", "maximize")
    write_rows(results, Path("runs/digits/results.csv"))
    print_results(results)              # best first, mean ± std over seeds

All is read from the trials' folders, nothing from a tracker.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlmodeldev.atomic import atomic_path, write_text
from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.sweep.monitor import MODES
from mlmodeldev.sweep.naming import Trial
from mlmodeldev.trial.record import best, best_entry, csv_rows, history, last_entry

FORMATS = (".csv", ".parquet")
PARAMETER = "parameter/"
"""Before the name of a parameter's column, where a fact or a result has that name."""
METRIC = "metric/"
"""Before the name of the metric's column, where a fact has that name."""
FACTS = ("id", "name", "group", "state", "reason", "epoch", "attempts")
"""Columns that each trial has beside the metric's."""
_ENDED = ("done", "pruned")


class ResultEntry(Protocol):
    """A trial and its folder, as the planner of a sweep lists them."""

    @property
    def trial(self) -> Trial: ...
    @property
    def folder(self) -> Path: ...
    @property
    def record(self) -> dict[str, Any]: ...
    @property
    def has_folder(self) -> bool: ...
    @property
    def state(self) -> str: ...


@dataclass
class Group:
    """A point and its replicates.

    Attributes:
        values: the metric of each trial that is done or pruned.
        states: how many trials are in each state.
    """

    name: str
    trials: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """Mean over the replicates."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        spread = {"mean": self.mean, "std": self.std, "n": len(self.values)}
        return {"name": self.name, **spread, "states": self.states, "trials": self.trials}


@dataclass(frozen=True)
class Results:
    """What a sweep has come to.

    Attributes:
        metric: what trials are ordered by.
        rows: one for each trial, best first: id, name, group, state, metric, overrides (those
            that are called as a fact is with `PARAMETER` before them), last logged values.
        groups: points, best mean first.
    """

    metric: str
    rows: list[dict[str, Any]]
    groups: list[Group]

    @property
    def column(self) -> str:
        """Name of the metric's column."""
        return column_of(self.metric)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Rows of trials that failed."""
        return [row for row in self.rows if row["state"] == "failed"]

    def as_dict(self) -> dict[str, Any]:
        """Return one JSON object."""
        groups = [group.as_dict() for group in self.groups]
        return {"metric": self.metric, "points": groups, "trials": self.rows}


def collect(entries: Iterable[ResultEntry], metric: str, goal: str) -> Results:
    """Read the folders of these trials.

    Args:
        entries: the trials.
        metric: as logged, such as ``val/accuracy``; each trial counts with its best value.
        goal: ``maximize`` or ``minimize``.
    """
    sign = -1 if goal == "maximize" else 1

    def place(value: float | None) -> tuple[bool, float]:
        return value is None, sign * (value or 0.0)

    column = column_of(metric)
    rows: list[dict[str, Any]] = []
    groups: dict[str, Group] = {}
    for entry in entries:
        row = _row(entry, metric, goal)
        rows.append(row)
        group = groups.setdefault(row["group"], Group(_point_name(entry.trial)))
        group.trials.append(row["id"])
        group.states[row["state"]] = group.states.get(row["state"], 0) + 1
        if row["state"] in _ENDED and row[column] is not None:
            group.values.append(row[column])
    rows.sort(key=lambda row: place(row[column]))
    return Results(metric, rows, sorted(groups.values(), key=lambda group: place(group.mean)))


def column_of(metric: str) -> str:
    """Return the name of a metric's column."""
    return METRIC * (metric in FACTS) + metric


def _row(entry: ResultEntry, metric: str, goal: str) -> dict[str, Any]:
    record = entry.record
    last = last_entry(entry.folder) if entry.has_folder else {}
    logged = {k: v for k, v in last.items() if k not in ("epoch", "step")}
    best_one = best_logged(record, entry.folder, metric, goal) if entry.has_folder else None
    facts = {
        "id": entry.trial.id,
        "name": entry.trial.name,
        "group": entry.trial.group,
        "state": entry.state,
        "reason": record.get("reason"),
        column_of(metric): (best_one or {}).get("value"),
        "epoch": record.get("epoch"),
        "attempts": record.get("attempts", 0),
    }
    measured = {f"last/{name}": value for name, value in logged.items()}
    measured |= record.get("test") or {}
    # A program of any kind may call its parameters what it likes: the trial's facts win.
    taken = facts.keys() | measured.keys()
    values = {PARAMETER * (k in taken) + k: v for k, v in entry.trial.overrides.items()}
    return {**facts, **values, **measured, **facts}


def best_logged(
    record: Mapping[str, Any], folder: Path, metric: str, goal: str
) -> dict[str, Any] | None:
    """Return name, mode, value and epoch of a trial's best; None where no finite one was logged.

    Args:
        record: the trial's; what it says counts where the metric is the trial's monitor.
        folder: the trial's; else what was logged there counts, each epoch or at the end's test.
        metric: as logged.
        goal: ``maximize`` or ``minimize``.
    """
    mode = MODES[goal]
    own = record.get("metric") or {}
    if (own.get("name"), own.get("mode")) == (metric, mode) and _is_finite(own.get("value")):
        return dict(own)
    entries = best_entry(folder, metric, goal)
    value, epoch = entries or (best(history(folder, metric), goal), None)
    if value is None:
        value = (record.get("test") or {}).get(metric)
    if not _is_finite(value):  # NaN has no place in an order
        return None
    return {"name": metric, "mode": mode, "value": value, "epoch": epoch}


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _point_name(trial: Trial) -> str:
    repeated = trial.naming.replicates
    return trial.naming.name({k: v for k, v in trial.overrides.items() if k not in repeated})


def write_rows(results: Results, file: Path) -> None:
    """Write a row for each trial, as CSV or Parquet by the file's ending; whole or not at all.

    Raises:
        UsageError: another ending, no place to write, or Parquet without pyarrow.
    """
    if file.suffix not in FORMATS:
        hint, allowed = nearest(file.suffix, FORMATS), ", ".join(FORMATS)
        raise UsageError(f"{file}: unknown ending {file.suffix!r}{hint} (allowed: {allowed})")
    columns = list(dict.fromkeys(name for row in results.rows for name in row))
    if file.suffix == ".csv":
        header = {name: name for name in columns}
        write_text(file, csv_rows([header, *results.rows], columns))
        return
    _write_parquet(results.rows, columns, file)


def _write_parquet(rows: Sequence[dict[str, Any]], columns: list[str], file: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        message = f"{file}: Parquet needs pyarrow (pip install pyarrow); or name a .csv"
        raise UsageError(message) from None
    table: dict[str, list[Any]] = defaultdict(list)
    for name in columns:
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        # a column has one type: numbers stay numbers, a mixture is text
        if not (kinds <= {int, float} or len(kinds) <= 1) or kinds & {list, dict}:
            values = [None if value is None else str(value) for value in values]
        table[name] = values
    with atomic_path(file) as path:
        pyarrow.parquet.write_table(pyarrow.table(dict(table)), path)


def print_results(results: Results, title: str = "") -> None:
    """Print the points, best first, and why trials failed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title) or None, title_justify="left")
    for name in ("point", escape(results.metric), "n", "states"):
        table.add_column(name, overflow="fold")
    for group in results.groups:
        states = ", ".join(f"{count} {state}" for state, count in sorted(group.states.items()))
        table.add_row(escape(group.name), spread(group), str(len(group.values)), states)
    console = Console(soft_wrap=True, emoji=False)
    console.print(table)
    for row in results.failures:
        console.print(f"[red]failed[/] {row['id']}  {escape(row['name'])}: ", end="")
        console.print(escape(str(row["reason"] or "no reason recorded")))


def spread(group: Group) -> str:
    """Return ``0.9321 ± 0.0040``; the mean alone of a single value."""
    if group.mean is None:
        return ""
    return f"{group.mean:.4f}" + ("" if group.std is None else f" ± {group.std:.4f}")
