"""A sweep's trials as a table: best first.

Example::

    print_table(entries)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlmodeldev.slurm.reconcile import Entry

_COLOURS = {"done": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries, the best value first, those without one last."""
    sign = -1 if _mode(entries) == "max" else 1

    def place(entry: Entry) -> tuple[bool, float]:
        return entry.value is None, sign * (entry.value or 0)

    return sorted(entries, key=place)


def print_table(entries: Sequence[Entry], title: str = "") -> None:
    """Print a table of the trials to standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for name in ("trial", "name", "state", "epoch", _metric(entries), "test", "attempts"):
        table.add_column(name, overflow="fold")
    for entry in ranked(entries):
        record = entry.record
        colour = _COLOURS.get(entry.state, "white")
        table.add_row(
            entry.trial.id,
            entry.trial.name,
            f"[{colour}]{entry.state}[/]",
            str(record.get("epoch", "")),
            "" if entry.value is None else f"{entry.value:.4f}",
            _test(record),
            str(record.get("attempts", "")),
        )
    Console(soft_wrap=True).print(table)


def _metric(entries: Sequence[Entry]) -> str:
    names = [(e.record.get("metric") or {}).get("name") for e in entries]
    return next((name for name in names if name), "metric")


def _mode(entries: Sequence[Entry]) -> str:
    modes = [(e.record.get("metric") or {}).get("mode") for e in entries]
    return next((mode for mode in modes if mode), "max")


def _test(record: dict[str, Any]) -> str:
    name = (record.get("metric") or {}).get("name", "").replace("val/", "test/")
    value = (record.get("test") or {}).get(name)
    return "" if value is None else f"{value:.4f}"
