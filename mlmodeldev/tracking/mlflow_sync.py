"""Send to MLflow what trials that have ended could not send while it was away.

Example::

    send_all(MLFLOW, trials_behind(MLFLOW, Path("runs"), sweep="digits"))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.tracking.behind import Tracker, awaits, is_behind, send_missing
from mlmodeldev.tracking.mlflow_run import KEY_ENTRY, UPLOADED_ENTRY

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.tracking.mlflow_logger import MlflowTrialLogger
    from mlmodeldev.trial.folder import TrialFolder


def _logger(settings: Settings, folder: TrialFolder) -> MlflowTrialLogger:
    from mlmodeldev.tracking.mlflow_logger import MlflowTrialLogger

    return MlflowTrialLogger(settings, folder, "sync tries again")


MLFLOW = Tracker("mlflow", "MLflow", (KEY_ENTRY,), UPLOADED_ENTRY, _logger)


def awaits_mlflow(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a trial has ended, chose MLflow, and is not whole there."""
    return awaits(MLFLOW, folder, record)


def report_to_mlflow(settings: Settings, folder: TrialFolder) -> None:
    """Send what MLflow lacks of a trial that is done, where it is chosen now."""
    if settings.logger.mlflow is not None and is_behind(MLFLOW, folder.read()):
        send_missing(MLFLOW, settings, folder)
