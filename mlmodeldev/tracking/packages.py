"""The packages of the chosen trackers: looked for before there is a trial, without importing them.

Example::

    refuse_missing(settings)        # logger=mlflow: the package mlflow is not installed; ...
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

_REQUIREMENTS = {"mlflow": "mlflow>=3.17", "clearml": "clearml>=2.1"}
"""Trackers that the project does not install by itself, by the names of their packages."""


def refuse_missing(settings: Settings) -> None:
    """Refuse a tracker that can't be imported; a sweep's trials would all fail for it.

    Raises:
        UsageError: with the command that installs it.
    """
    for name, requirement in _REQUIREMENTS.items():
        if getattr(settings.logger, name) is not None and not _is_there(name):
            raise UsageError(
                f"logger={name}: the package {name} is not installed; pip install '{requirement}'"
            )


def _is_there(name: str) -> bool:
    there = sys.modules[name] if name in sys.modules else importlib.util.find_spec(name)
    return there is not None
