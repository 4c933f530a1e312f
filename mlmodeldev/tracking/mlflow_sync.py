"""Send to MLflow what trials that have ended could not send while it was away.

A trial that goes on sends what is missing itself, and so does one that is started again though it
is done. ``SlurmTrain.py sync`` does it for all others.

Example::

    send_all(trials_behind(Path("runs"), sweep="digits"))
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.tracking.metadata import models_to_keep, read_yaml, stored_settings
from mlmodeldev.tracking.mlflow_run import KEY_ENTRY, UPLOADED_ENTRY
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

_ENDED = ("done", "pruned", "failed")


def trials_behind(runs_dir: Path, sweep: str | None = None) -> Iterator[Path]:
    """Yield the folders of trials that have ended, chose MLflow, and are not whole there."""
    for file in sorted(runs_dir.glob(f"{sweep or '*'}/*/trial.json")):
        if awaits_mlflow(file.parent, read_record(file.parent)):
            yield file.parent


def awaits_mlflow(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a trial has ended, chose MLflow, and is not whole there.

    One that failed before it had a run and a row has nothing to send.
    """
    has_any = KEY_ENTRY in record or (folder / "metrics.csv").is_file()
    return has_any and _is_behind(record) and _chose_mlflow(folder)


def uses_mlflow(runs_dir: Path, sweep: str | None = None) -> bool:
    """Return whether any trial has had to do with MLflow."""
    files = runs_dir.glob(f"{sweep or '*'}/*/trial.json")
    return any(KEY_ENTRY in read_record(file.parent) for file in files)


def send_all(folders: Iterable[Path]) -> bool:
    """Send what MLflow lacks of each folder's trial, with a line on each; return whether all is up.

    Raises:
        UsageError: the package is not installed, or the address is none.
    """
    complete = True
    for folder in folders:
        sent = send_missing(stored_settings(folder), TrialFolder(folder))
        complete = complete and sent
        name = f"{folder.parent.name}/{folder.name}"
        print(f"{name}: {'is whole' if sent else 'is not whole yet'} in MLflow", file=sys.stderr)
    return complete


def report_to_mlflow(settings: Settings, folder: TrialFolder) -> None:
    """Send what MLflow lacks of a trial that is done, where it is chosen now."""
    if settings.logger.mlflow is not None and _is_behind(folder.read()):
        send_missing(settings, folder)


def send_missing(settings: Settings, folder: TrialFolder) -> bool:
    """Send rows, pictures and model; return whether MLflow has everything then.

    Raises:
        UsageError: the package is not installed, or the address is none.
    """
    from mlmodeldev.tracking.mlflow_logger import MlflowTrialLogger

    state = str(folder.read().get("state"))
    tracker = MlflowTrialLogger(settings, folder, "sync tries again")
    tracker.resume_from(sys.maxsize)
    models = models_to_keep(settings, folder.path, state, "mlflow")
    complete = bool(tracker.end(state, models))
    folder.update(**{UPLOADED_ENTRY: complete})
    return complete


def _is_behind(record: Mapping[str, Any]) -> bool:
    return record.get("state") in _ENDED and not record.get(UPLOADED_ENTRY)


def _chose_mlflow(folder: Path) -> bool:
    try:
        return bool(read_yaml(folder / "config.yaml")["logger"]["mlflow"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
