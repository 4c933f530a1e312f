"""Sweeps: the file that lists hyper-parameters, and the trials that it declares.

Example::

    from mlmodeldev.sweep import load

    sweep = load("sweep/config.yaml")
    for trial in sweep.trials():
        print(trial.id, trial.name, trial.overrides)

``python -m mlmodeldev.sweep check sweep/*.yaml`` looks for mistakes. `docs/sweeps.md` has the
format. Names are imported on first use, so that this package costs nothing to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.sweep.document import Problem
    from mlmodeldev.sweep.lint import check
    from mlmodeldev.sweep.loading import Sweep, load, loads
    from mlmodeldev.sweep.naming import Trial

__all__ = ["Problem", "Sweep", "Trial", "check", "load", "loads"]

_MODULES = {
    "Problem": "document",
    "Sweep": "loading",
    "Trial": "naming",
    "check": "lint",
    "load": "loading",
    "loads": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
