"""How large a trial is, part by part, what of it may go, and why nothing may.

Example::

    trial = measure(folder, Choice(states=True), pinned={})
    trial.sizes["checkpoints"], trial.free, trial.kept
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import is_leftover
from mlmodeldev.lease import owned
from mlmodeldev.tracking.clearml_sync import awaits_clearml
from mlmodeldev.tracking.mlflow_sync import awaits_mlflow
from mlmodeldev.tracking.upload import awaits_upload
from mlmodeldev.trial.checkpoint import recovery_checkpoints
from mlmodeldev.trial.collected import is_recovery_checkpoint
from mlmodeldev.trial.folder import RECORD_VERSION
from mlmodeldev.trial.record import read_record
from mlmodeldev.trial.record_types import DAMAGED

PARTS = ("best", "last", "checkpoints", "wandb", "leftovers", "rest")
"""Of a trial: best/ and best.ckpt; last/; checkpoints with optimizer states; W&B's own files; what
killed writers left; all else (rows, logs, CKA)."""

RECENT_SECONDS = 3600.0
"""What was touched since may be in somebody's hand: a file being written, a folder being made."""

_FINISHED = ("done", "pruned")
_WHY = {
    "running": "was killed, and goes on from its checkpoint",
    "interrupted": "is interrupted, and goes on from its checkpoint",
    "pending": "has not begun yet",
}
_EXPORT = "training_state.json"


@dataclass(frozen=True)
class Choice:
    """What is asked to go.

    Attributes:
        states: whether checkpoints with optimizer states of finished trials go.
        keep: how many of them stay, the newest.
        older_than: seconds since a trial, a log or a copy of code was last changed.
        reproductions: whether finished runs of ``trial reproduce`` go.
    """

    states: bool = False
    keep: int = 0
    older_than: float = 0.0
    reproductions: bool = False


@dataclass(frozen=True)
class Drop:
    """A file or folder that may go."""

    path: Path
    part: str
    size: int


@dataclass
class TrialSize:
    """A trial's folder.

    Attributes:
        folder: the trial's.
        record: as it was read.
        sizes: bytes of each of `PARTS`.
        kept: why nothing of it goes; empty: something may.
        drops: what may go, in that order.
    """

    folder: Path
    record: dict[str, Any]
    sizes: dict[str, int] = field(default_factory=dict)
    kept: str = ""
    drops: list[Drop] = field(default_factory=list)

    @property
    def name(self) -> str:
        """``sweep/trial``."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def state(self) -> str:
        """As its record says."""
        return str(self.record.get("state", "unreadable"))

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(self.sizes.values())

    @property
    def free(self) -> int:
        """Bytes of what may go."""
        return sum(drop.size for drop in self.drops)


def measure(folder: Path, choice: Choice, pinned: Mapping[Path, str]) -> TrialSize:
    """Return a trial's parts and what may go of them.

    Args:
        folder: the trial's.
        choice: what is asked to go.
        pinned: trials that others name, with who names them.
    """
    trial = TrialSize(folder, read_record(folder))
    files = list(_files(folder))
    trial.sizes = dict.fromkeys(PARTS, 0)
    for path, size in files:
        trial.sizes[_part(path.relative_to(folder))] += size
    trial.kept = _why_kept(folder, trial.record, pinned, choice.older_than)
    if not trial.kept:
        trial.drops = [
            *_checkpoints(trial, choice, dict(files)),
            *_synced_runs(folder, files),
            *_leftovers(folder, files),
        ]
    return trial


def tree_size(folder: Path) -> int:
    """Return the bytes of the files in a folder, links not followed."""
    return sum(size for _, size in _files(folder))


def is_recent(path: Path, seconds: float = RECENT_SECONDS) -> bool:
    """Return whether a path was changed in the last seconds, or is gone."""
    try:
        return time.time() - path.lstat().st_mtime < seconds
    except OSError:
        return True


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place, name)
            try:
                yield path, path.lstat().st_size
            except OSError:  # gone meanwhile
                continue


def _part(path: Path) -> str:
    """Return which part of a trial a file belongs to, by its path in the trial's folder."""
    if _leftover_in(path) is not None:
        return "leftovers"
    if path.parts[0] == "best" or path == Path("checkpoints", "best.ckpt"):
        return "best"
    if path.parts[0] in ("last", "wandb") and len(path.parts) > 1:
        return path.parts[0]
    return "checkpoints" if is_recovery_checkpoint(path) else "rest"


def _leftover_in(path: Path) -> Path | None:
    """Return the outermost part of a path that no writer has finished, or that one has replaced."""
    for count, name in enumerate(path.parts, 1):
        if is_leftover(name) or _is_aside(name):
            return Path(*path.parts[:count])
    return None


def _is_aside(name: str) -> bool:
    """Return whether a folder of this name is what a killed exchange has left beside another."""
    return name.startswith(".") and name.endswith((".next", ".previous"))


# --- what stays


def _why_kept(
    folder: Path, record: dict[str, Any], pinned: Mapping[Path, str], older_than: float
) -> str:
    if why := _why_going_on(record):
        return why
    if record.get("registered"):
        return f"is registered as {_registered(record['registered'])}"
    if folder in pinned:
        return f"is named by {pinned[folder]}"
    waits = (awaits_upload, awaits_mlflow, awaits_clearml)
    if any(awaits(folder, record) for awaits in waits):
        return "waits to be uploaded (slurm/SlurmTrain.py sync)"
    is_young = older_than and time.time() - float(record.get("updated") or 0) < older_than
    return "is not old enough" if is_young else ""


def _why_going_on(record: Mapping[str, Any]) -> str:
    """Return why a trial has not ended, or may not have; empty: it has."""
    if DAMAGED in record:
        return f"has a damaged record: {record[DAMAGED][0]}"
    state, version = record.get("state"), record.get("version", 1)
    if not record:
        return "has a record that can't be read"
    if not isinstance(version, int) or version > RECORD_VERSION:
        return "has a record of a newer mlmodeldev"
    if owned(record):
        return f"runs on host {(record.get('owner') or {}).get('host')}"
    if state in (*_FINISHED, "failed"):
        return ""
    return _WHY.get(str(state), f"is in the state {state}")


def _registered(entries: Any) -> str:
    try:
        return ", ".join(f"{entry['name']} {entry['version']}{_place(entry)}" for entry in entries)
    except (TypeError, KeyError):
        return str(entries)


def _place(entry: Mapping[str, Any]) -> str:
    """Return which registry has a version, where that is not a folder as in earlier records."""
    place = str(entry.get("registry") or "")
    return f" ({place})" if place.startswith(("mlflow:", "wandb:")) else ""


# --- what may go


def _checkpoints(trial: TrialSize, choice: Choice, sizes: Mapping[Path, int]) -> list[Drop]:
    """Return the checkpoints that may go, the oldest first.

    The last weights are in last/; where that was not exported, the newest checkpoint has them.
    """
    if not choice.states or trial.state not in _FINISHED:
        return []
    folder = trial.folder
    wanted = ["last", *(["best"] if (folder / "checkpoints" / "best.ckpt").is_file() else [])]
    exported = all((folder / name / _EXPORT).is_file() for name in wanted)
    keep = max(choice.keep, 0 if exported else 1)
    paths = recovery_checkpoints(folder / "checkpoints")[::-1]
    return [
        Drop(path, "checkpoints", sizes.get(path, 0)) for path in paths[: max(0, len(paths) - keep)]
    ]


def _synced_runs(folder: Path, files: list[tuple[Path, int]]) -> Iterator[Drop]:
    """Yield the client's offline files of which W&B has all."""
    for run in sorted((folder / "wandb").glob("offline-run-*")):
        logs = list(run.glob("run-*.wandb"))
        if logs and all(log.with_name(f"{log.name}.synced").is_file() for log in logs):
            yield Drop(run, "wandb", sum(size for path, size in files if run in path.parents))


def _leftovers(folder: Path, files: list[tuple[Path, int]]) -> Iterator[Drop]:
    sizes: dict[Path, int] = {}
    for path, size in files:
        leftover = _leftover_in(path.relative_to(folder))
        if leftover is not None:
            whole = folder / leftover
            sizes[whole] = sizes.get(whole, 0) + size
    for path, size in sorted(sizes.items()):
        replaced = path.with_name(path.stem.removeprefix("."))
        if not is_recent(path) and (is_leftover(path.name) or replaced.is_dir()):
            yield Drop(path, "leftovers", size)
