"""The declared sweep against what its folder holds.

Example::

    for entry in reconcile(load("sweep/config.yaml"), Path("runs")):
        entry.state         # "missing", or the state in trial.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.sweep import Sweep, Trial

ENDED = frozenset({"done", "pruned"})
"""States in which there is nothing left to run."""


@dataclass(frozen=True)
class Entry:
    """One declared trial and what is known of it."""

    trial: Trial
    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """The trial's record; empty where it never ran or can't be read."""
        try:
            record: dict[str, Any] = json.loads((self.folder / "trial.json").read_text())
        except (OSError, ValueError):
            return {}
        return record

    @property
    def state(self) -> str:
        """``missing``, or the state that the trial is in."""
        return str(self.record.get("state", "missing"))

    @property
    def value(self) -> float | None:
        """Best value of the monitored metric so far."""
        value = (self.record.get("metric") or {}).get("value")
        return None if value is None else float(value)

    def again(self) -> Entry:
        """Return the entry, to be read anew."""
        return Entry(self.trial, self.folder)

    def as_dict(self) -> dict[str, Any]:
        """Return what a table or JSON shows."""
        return {
            "id": self.trial.id,
            "name": self.trial.name,
            "overrides": self.trial.overrides,
            "state": self.state,
            "epoch": self.record.get("epoch"),
            "metric": self.record.get("metric"),
            "test": self.record.get("test"),
            "attempts": self.record.get("attempts", 0),
            "folder": str(self.folder),
        }


def reconcile(
    sweep: Sweep, runs_dir: Path, count: int | None = None, seed: int = 0
) -> Iterator[Entry]:
    """Yield the declared trials with their folders, in the sweep's order."""
    base = runs_dir / folder_name(sweep)
    for trial in sweep.trials(count, seed):
        yield Entry(trial, base / trial.id)


def folder_name(sweep: Sweep) -> str:
    """Return the sweep's name as a folder's name."""
    return sweep.folder
