"""trainer.py with steps that take time, so that a test can disturb a trial in their midst.

STEP_SECONDS: how long each training step lasts at least. SKEW_SECONDS: how much longer on the
last rank, so that ranks are out of step.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import trainer
from model import DualEncoder

if TYPE_CHECKING:
    from mlmodeldev.settings import Settings


def train(settings: Settings) -> trainer.Result:
    """Train as trainer.py does, slowly."""
    seconds = float(os.environ.get("STEP_SECONDS", "0"))
    if int(os.environ.get("SLURM_PROCID", "0")) == int(os.environ.get("SLURM_NTASKS", "1")) - 1:
        seconds += float(os.environ.get("SKEW_SECONDS", "0"))
    step: Any = DualEncoder.training_step

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return step(*arguments, **named)

    DualEncoder.training_step = slow  # type: ignore[method-assign]
    return trainer.train(settings)
