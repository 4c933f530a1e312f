"""A program for trials whose code differs from its commit, whatever this work tree does.

Example::

    launch("tests.wandb.changed", overrides, log, environment)
"""

from __future__ import annotations

from typing import Any

from mlmodeldev.settings import Settings
from mlmodeldev.training import trial_start

CHANGES = "--- a/model.py\n+++ b/model.py\n+width = 64\n"


def train(settings: Settings) -> Any:
    import trainer

    trial_start.changes = lambda **_: CHANGES
    return trainer.train(settings)
