"""Send to a tracker what trials that have ended could not send while it was away.

A trial that goes on sends what is missing itself, and so does one that is started again though it
is done. ``SlurmTrain.py sync`` does it for all others.

Example::

    send_all(MLFLOW, trials_behind(MLFLOW, Path("runs"), sweep="digits"))
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.tracking.metadata import (
    models_to_keep,
    read_yaml,
    stored_settings,
    trial_metadata,
)
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.tracking.delivery import DeliveringLogger

_ENDED = ("done", "pruned", "failed")


@dataclass(frozen=True)
class Tracker:
    """A tracker that can be sent to later.

    Attributes:
        name: of its group of settings, ``logger.<name>``.
        title: as it is shown.
        entries: of ``trial.json``; a record with any of them has had to do with the tracker.
        uploaded: entry of ``trial.json``: whether the tracker has everything.
        logger: makes the logger of a trial that has ended.
    """

    name: str
    title: str
    entries: tuple[str, ...]
    uploaded: str
    logger: Callable[[Settings, TrialFolder], DeliveringLogger[Any]]


def trials_behind(tracker: Tracker, runs_dir: Path, sweep: str | None = None) -> Iterator[Path]:
    """Yield the folders of trials that have ended, chose the tracker, and are not whole there."""
    for file in sorted(runs_dir.glob(f"{sweep or '*'}/*/trial.json")):
        if awaits(tracker, file.parent, read_record(file.parent)):
            yield file.parent


def awaits(tracker: Tracker, folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a trial has ended, chose the tracker, and is not whole there.

    One that failed before it had a run and a row has nothing to send.
    """
    has_any = _has_entry(tracker, record) or (folder / "metrics.csv").is_file()
    return has_any and is_behind(tracker, record) and _chose(tracker, folder)


def is_behind(tracker: Tracker, record: Mapping[str, Any]) -> bool:
    """Return whether a trial has ended and the tracker has not everything of it."""
    return record.get("state") in _ENDED and not record.get(tracker.uploaded)


def is_used(tracker: Tracker, runs_dir: Path, sweep: str | None = None) -> bool:
    """Return whether any trial has had to do with the tracker."""
    files = runs_dir.glob(f"{sweep or '*'}/*/trial.json")
    return any(_has_entry(tracker, read_record(file.parent)) for file in files)


def send_all(tracker: Tracker, folders: Iterable[Path]) -> bool:
    """Send what is missing of each folder's trial, with a line on each; return whether all is up.

    Raises:
        UsageError: the package is not installed, or the address is none.
    """
    complete = True
    for folder in folders:
        sent = send_missing(tracker, stored_settings(folder), TrialFolder(folder))
        complete = complete and sent
        name = f"{folder.parent.name}/{folder.name}"
        outcome = "is whole" if sent else "is not whole yet"
        print(f"{name}: {outcome} in {tracker.title}", file=sys.stderr)
    return complete


def send_missing(tracker: Tracker, settings: Settings, folder: TrialFolder) -> bool:
    """Send rows, pictures and model; return whether the tracker has everything then.

    Raises:
        UsageError: the package is not installed, or the address is none.
    """
    record = folder.read()
    state = str(record.get("state"))
    logger: Any = tracker.logger(settings, folder)
    logger.resume_from(math.inf)
    logger.note({"trial": trial_metadata(settings, record)})
    models = models_to_keep(settings, folder.path, state, tracker.name)
    complete = bool(logger.end(state, models))
    folder.update(**{tracker.uploaded: complete})
    return complete


def _has_entry(tracker: Tracker, record: Mapping[str, Any]) -> bool:
    return any(entry in record for entry in tracker.entries)


def _chose(tracker: Tracker, folder: Path) -> bool:
    try:
        return bool(read_yaml(folder / "config.yaml")["logger"][tracker.name])
    except (OSError, ValueError, KeyError, TypeError):
        return False
