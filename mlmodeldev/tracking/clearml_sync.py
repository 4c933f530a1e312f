"""Send to ClearML what trials that have ended could not send, or left as a session for it.

Example::

    send_all(CLEARML, trials_behind(CLEARML, Path("runs"), sweep="digits"))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.tracking.behind import Tracker, awaits, is_behind, send_missing
from mlmodeldev.tracking.clearml_offline import OFFLINE_ENTRY
from mlmodeldev.tracking.clearml_task import KEY_ENTRY, UPLOADED_ENTRY

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.tracking.clearml_logger import ClearmlTrialLogger
    from mlmodeldev.trial.folder import TrialFolder


def _logger(settings: Settings, folder: TrialFolder) -> ClearmlTrialLogger:
    """Return the logger that sends, whatever the trial was told.

    Raises:
        UsageError: there is no server to send to, or the package is not installed.
    """
    from mlmodeldev.tracking.clearml_logger import ClearmlTrialLogger, why_offline

    if why := why_offline(settings, goes_online=True):
        raise UsageError(f"ClearML: nothing is sent, because {why}")
    return ClearmlTrialLogger(settings, folder, "sync tries again", goes_online=True)


CLEARML = Tracker("clearml", "ClearML", (KEY_ENTRY, OFFLINE_ENTRY), UPLOADED_ENTRY, _logger)


def awaits_clearml(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a trial has ended, chose ClearML, and is not whole there."""
    return awaits(CLEARML, folder, record)


def report_to_clearml(settings: Settings, folder: TrialFolder) -> None:
    """Send what ClearML lacks of a trial that is done, where it is chosen now and has a server."""
    from mlmodeldev.tracking.clearml_logger import why_offline

    if settings.logger.clearml is None or not is_behind(CLEARML, folder.read()):
        return
    if not why_offline(settings):
        send_missing(CLEARML, settings, folder)
