"""A sweep's trials as a table: best first.

Example::

    print_table(entries, "digits", tasks)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm.plan import state
from mlmodeldev.slurm.reconcile import Entry

if TYPE_CHECKING:
    from mlmodeldev.slurm.tasks import Task

ROWS = 100
"""Rows shown at most."""
_QUIET = {"done", "pruned", "missing", "queued"}
_COLOURS = {
    "done": "green",
    "failed": "red",
    "lost": "red",
    "interrupted": "yellow",
    "queued": "blue",
    "running": "cyan",
}


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries, the best value first, those without one last."""
    sign = -1 if _mode(entries) == "max" else 1

    def place(entry: Entry) -> tuple[bool, float]:
        return entry.value is None, sign * (entry.value or 0)

    return sorted(entries, key=place)


def print_table(
    entries: Sequence[Entry], title: str = "", tasks: Mapping[str, Task] | None = None
) -> None:
    """Print a table of the trials to standard output.

    Args:
        tasks: the trials' jobs by identity; adds columns of what the queue says.
    """
    from rich.console import Console
    from rich.table import Table

    tasks = tasks or {}
    table = Table(title=title or None, title_justify="left")
    names = ["trial", "name", "state", "epoch", _metric(entries), "test", "attempts"]
    for name in [*names, *(["job", "left", "node"] if tasks else [])]:
        table.add_column(name, overflow="fold")
    for entry in _shown(entries, tasks):
        task = tasks.get(entry.trial.id)
        table.add_row(*_cells(entry, task), *(_queue_cells(task) if tasks else []))
    Console(soft_wrap=True).print(table)
    print(_summary(entries, tasks))


def _shown(entries: Sequence[Entry], tasks: Mapping[str, Task]) -> list[Entry]:
    """Return the rows: all, or of many the best and those that something is going on with."""
    order = ranked(entries)
    if len(order) <= ROWS:
        return order
    best = order[: ROWS // 2]
    others = [e for e in order[ROWS // 2 :] if _now(e, tasks) not in _QUIET]
    return best + others[: ROWS - len(best)]


def _summary(entries: Sequence[Entry], tasks: Mapping[str, Task]) -> str:
    counts = Counter(_now(entry, tasks) for entry in entries)
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    more = "" if len(entries) <= ROWS else f"; {ROWS} rows at most are shown, --json has all"
    return f"{len(entries)} trials: {told or 'none'}{more}"


def _now(entry: Entry, tasks: Mapping[str, Task]) -> str:
    return state(entry, tasks.get(entry.trial.id))


def _cells(entry: Entry, task: Task | None) -> list[str]:
    record = entry.record
    now = state(entry, task)
    return [
        entry.trial.id,
        entry.trial.name,
        f"[{_COLOURS.get(now, 'white')}]{now}[/]",
        _epoch(record),
        "" if entry.value is None else f"{entry.value:.4f}",
        _test(record),
        str(record.get("attempts", "")),
    ]


def _queue_cells(task: Task | None) -> list[str]:
    if task is None:
        return ["", "", ""]
    queued = task.queued
    if queued is None:
        return [task.job, "", ""]
    waits = "" if queued.reason in ("None", "") else f"({queued.reason})"
    return [task.job, queued.time_left if queued.node else "", queued.node or waits]


def _epoch(record: Mapping[str, Any]) -> str:
    if "epoch" not in record:
        return ""
    return f"{record['epoch']}/{record['epochs']}" if "epochs" in record else str(record["epoch"])


def _metric(entries: Sequence[Entry]) -> str:
    names = [(e.record.get("metric") or {}).get("name") for e in entries]
    return next((name for name in names if name), "metric")


def _mode(entries: Sequence[Entry]) -> str:
    modes = [(e.record.get("metric") or {}).get("mode") for e in entries]
    return next((mode for mode in modes if mode), "max")


def _test(record: Mapping[str, Any]) -> str:
    name = (record.get("metric") or {}).get("name", "").replace("val/", "test/")
    value = (record.get("test") or {}).get(name)
    return "" if value is None else f"{value:.4f}"
