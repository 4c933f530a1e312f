"""The declared sweep against what its folder holds.

Example::

    entries = list(reconcile(load("sweep/config.yaml"), Path("runs")))
    entries[0].state                    # "missing", or the state in trial.json
    undeclared(entries, Path("runs/digits"))

What is missing or interrupted is run, what failed waits for ``retry``, what is done or pruned is
skipped, what runs is left alone. A trial that the file no longer declares is told of; its folder
stays.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.trial.folder import owned, read_record

if TYPE_CHECKING:
    from mlmodeldev.sweep import Sweep, Trial

ENDED = frozenset({"done", "pruned"})
"""States in which there is nothing left to run."""


@dataclass(frozen=True)
class Entry:
    """One declared trial and what is known of it.

    Attributes:
        elsewhere: its state in W&B, where that was asked and runs there hold it.
    """

    trial: Trial
    folder: Path
    elsewhere: str | None = None

    @cached_property
    def record(self) -> dict[str, Any]:
        """The trial's record; empty where it never ran or can't be read."""
        return read_record(self.folder)

    @property
    def state(self) -> str:
        """``missing``, or the state that the trial is in, here or elsewhere."""
        own = str(self.record.get("state", "missing"))
        if self.elsewhere in ENDED:
            return own if own in ENDED else str(self.elsewhere)
        if self.elsewhere == "running" and own == "failed":
            return self.elsewhere
        return self.elsewhere if self.elsewhere and own == "missing" else own

    @property
    def runs_elsewhere(self) -> bool:
        """Whether only W&B knows that it runs."""
        return self.state == "running" and self.record.get("state") != "running"

    @property
    def value(self) -> float | None:
        """Best value of the monitored metric so far."""
        value = (self.record.get("metric") or {}).get("value")
        return None if value is None else float(value)

    def again(self) -> Entry:
        """Return the entry, to be read anew."""
        return Entry(self.trial, self.folder, self.elsewhere)

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
    """Yield the declared trials with their folders, in the sweep's order.

    A search declares no list: of ``method: bayes`` the trials are those that were begun.
    """
    base = runs_dir / folder_name(sweep)
    if sweep.method == "bayes":
        yield from begun(sweep, base)
        return
    for trial in sweep.trials(count, seed):
        yield Entry(trial, base / trial.id)


def begun(sweep: Sweep, base: Path) -> Iterator[Entry]:
    """Yield a sweep's trials that have a folder, in the order of their beginning."""
    from mlmodeldev.sweep import Trial

    keys = sweep.space.keys
    found = []
    for folder in trial_folders(base):
        record = read_record(folder)
        overrides = record.get("overrides")
        if isinstance(overrides, dict):
            point = {key: overrides[key] for key in keys if key in overrides}
            trial = Trial(point, sweep.naming)
            if trial.id == folder.name:
                found.append((record.get("created") or 0.0, Entry(trial, folder)))
    yield from (entry for _, entry in sorted(found, key=lambda pair: pair[0]))


def trial_folders(base: Path) -> list[Path]:
    """Return the folders of a sweep that hold a trial, by name."""
    try:
        listed = sorted(os.scandir(base), key=lambda item: item.name)
    except OSError:
        return []
    return [
        Path(item.path)
        for item in listed
        if not item.name.startswith(".") and Path(item.path, "trial.json").is_file()
    ]


def undeclared(entries: Iterable[Entry], base: Path) -> list[Path]:
    """Return the folders of trials that the sweep file no longer declares."""
    declared = {entry.trial.id for entry in entries}
    return [folder for folder in trial_folders(base) if folder.name not in declared]


def stop(folder: Path) -> bool:
    """Ask a trial that runs on this machine to save its state and end; return whether it was."""
    record = read_record(folder)
    owner = record.get("owner") or {}
    if not owned(record) or owner.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(owner["pid"]), signal.SIGTERM)
    except (OSError, ValueError, KeyError):
        return False
    return True


def folder_name(sweep: Sweep) -> str:
    """Return the sweep's name as a folder's name."""
    return sweep.folder
