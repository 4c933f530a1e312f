"""The trials of a sweep, each with its folder and what its record says.

Example::

    entries = list(reconcile(sweep, Path("runs")))       # the folder is the only truth
    done = [entry for entry in entries if entry.state in ENDED]
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.lease import owned
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from mlmodeldev.sweep import Sweep, Trial
    from mlmodeldev.sweep.definition import Metric

ENDED = frozenset({"done", "pruned"})
"""States in which there is nothing left to run."""


@dataclass(slots=True)
class TrialEntry:
    """One declared trial and its record; not frozen, for a million of them are made at once.

    Attributes:
        trial: its values and its identity.
        base: the sweep's folder, in which it lies, or will.
        wandb_state: its state in W&B, where that was asked and runs there hold it.
        anew: whether what is in the folder is to be moved aside, and counts no more.
        ranked_by: the sweep's metric; None: the trial's own monitor.
    """

    trial: Trial
    base: Path
    wandb_state: str | None = None
    anew: bool = False
    ranked_by: Metric | None = None
    _record: list[dict[str, Any]] = field(default_factory=list, repr=False, compare=False)
    _metric: Any = field(default=..., repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Where it lies, or will."""
        return self.base / self.trial.id

    @property
    def record(self) -> dict[str, Any]:
        """The trial's record, read once; empty where it never ran or can't be read."""
        if self.anew:
            return {}
        if not self._record:
            self._record.append(read_record(self.folder))
        return self._record[0]

    @property
    def has_folder(self) -> bool:
        """Whether there may be files of it; many a declared trial was never begun."""
        return self._record is not _NOTHING and not self.anew

    @property
    def state(self) -> str:
        """``missing``, or the state that the trial is in, here or in W&B."""
        own = str(self.record.get("state", "missing"))
        if self.wandb_state in ENDED:
            return own if own in ENDED else str(self.wandb_state)
        if self.wandb_state == "running" and own == "failed":
            return self.wandb_state
        return self.wandb_state if self.wandb_state and own == "missing" else own

    @property
    def runs_in_wandb(self) -> bool:
        """Whether only W&B knows that it runs."""
        return self.state == "running" and self.record.get("state") != "running"

    @property
    def metric(self) -> dict[str, Any] | None:
        """Name, mode, best value so far and its epoch: of the sweep's metric, else the monitor's.

        A trial whose monitor is another metric has logged the sweep's all the same.
        """
        from mlmodeldev.sweep.results import best_logged

        if self.ranked_by is None or not self.record:
            return self.record.get("metric")
        if self._metric is ...:  # it may take three files to tell
            goal = self.ranked_by.goal
            self._metric = best_logged(self.record, self.folder, self.ranked_by.name, goal)
        result: dict[str, Any] | None = self._metric
        return result

    @property
    def value(self) -> float | None:
        """Best value of that metric so far."""
        value = (self.metric or {}).get("value")
        return None if value is None else float(value)

    def again(self) -> TrialEntry:
        """Return the entry with the record that is there now."""
        return TrialEntry(self.trial, self.base, self.wandb_state, ranked_by=self.ranked_by)

    def as_dict(self) -> dict[str, Any]:
        """Return what a table or JSON shows."""
        return {
            "id": self.trial.id,
            "name": self.trial.name,
            "overrides": self.trial.overrides,
            "state": self.state,
            "epoch": self.record.get("epoch"),
            "metric": self.metric,
            "test": self.record.get("test"),
            "attempts": self.record.get("attempts", 0),
            "folder": str(self.folder),
        }


def reconcile(
    sweep: Sweep, runs_dir: Path, count: int | None = None, seed: int = 0
) -> Iterator[TrialEntry]:
    """Yield the declared trials with their folders, in the sweep's order.

    A search declares no list: of ``method: bayes`` the trials are those that were begun.
    """
    from mlmodeldev.sweep.loading import refuse_endless

    base = runs_dir / sweep.folder
    if sweep.method == "bayes":
        yield from begun_trials(sweep, base)
        return
    refuse_endless(sweep, count)
    begun = _names(base)
    metric = sweep.definition.metric
    for trial in sweep.trials(count, seed):
        # most were never begun, and share the record of nothing
        record = [] if trial.id in begun else _NOTHING
        yield TrialEntry(trial, base, None, False, metric, record)


_NOTHING: list[dict[str, Any]] = [{}]


def _names(base: Path) -> frozenset[str]:
    """Return the names of all folders in a sweep's folder, by one look."""
    try:
        with os.scandir(base) as items:
            return frozenset(item.name for item in items)
    except OSError:
        return frozenset()


def begun_trials(sweep: Sweep, base: Path) -> Iterator[TrialEntry]:
    """Yield a sweep's trials that have a folder, in the order of their beginning."""
    begun = []
    for folder in trial_folders(base):
        record = read_record(folder)
        if entry := begun_trial(sweep, folder, record):
            begun.append((record.get("created") or 0.0, entry))
    yield from (entry for _, entry in sorted(begun, key=lambda pair: pair[0]))


def begun_trial(sweep: Sweep, folder: Path, record: Mapping[str, Any]) -> TrialEntry | None:
    """Return the trial of a sweep that lies in a folder; None: its values are no point of it."""
    from mlmodeldev.sweep import Trial

    overrides = record.get("overrides")
    if not isinstance(overrides, dict):
        return None
    point = {key: overrides[key] for key in sweep.space.keys if key in overrides}
    trial = Trial(point, sweep.naming)
    if trial.id != folder.name:
        return None
    return TrialEntry(trial, folder.parent, ranked_by=sweep.definition.metric)


def trial_folders(base: Path, besides: Collection[str] = ()) -> list[Path]:
    """Return the folders of a sweep that hold a trial, by name, but for some names."""
    try:
        with os.scandir(base) as items:
            names = sorted(item.name for item in items if not item.name.startswith("."))
    except OSError:
        return []
    folders = (base / name for name in names if name not in besides)
    return [folder for folder in folders if (folder / "trial.json").is_file()]


def undeclared_folders(entries: Iterable[TrialEntry], base: Path) -> list[Path]:
    """Return the folders of trials that the sweep file no longer declares."""
    return trial_folders(base, besides={entry.trial.id for entry in entries})


def find_trial(entries: Sequence[TrialEntry], text: str) -> TrialEntry:
    """Return the trial that an identity, or the beginning of one, names.

    Raises:
        UsageError: none, or several.
    """
    matches = [entry for entry in entries if entry.trial.id.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"{text}: may be {' or '.join(e.trial.id for e in matches)}")
    names = [entry.trial.id for entry in entries]
    hint = nearest(text, names)
    raise UsageError(f"{text}: the sweep has no such trial{hint}; status lists its trials")


def stop_trial(folder: Path) -> bool:
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
