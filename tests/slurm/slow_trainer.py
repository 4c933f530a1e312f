"""trainer.py with steps that take time, so that a test can disturb a trial in their midst.

STEP_SECONDS: how long each training step lasts at least. SKEW_SECONDS: how much longer on the
last rank, so that ranks are out of step. Both in a job's first start only, and until the file
that RELEASE names is there: what comes after the disturbance need not be slow.

    python tests/slurm/slow_trainer.py          # a sweep's program
    model._target_=tests.slurm.slow_trainer.SlowEncoder   # under another program
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trainer
from model import DualEncoder

if TYPE_CHECKING:
    from mlmodeldev.settings import Settings


class SlowEncoder(DualEncoder):
    """The same model, slowly."""

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        time.sleep(_seconds())
        return super().training_step(*arguments, **named)


def train(settings: Settings) -> trainer.Result:
    """Train as trainer.py does, slowly."""
    step: Any = DualEncoder.training_step

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(_seconds())
        return step(*arguments, **named)

    DualEncoder.training_step = slow  # type: ignore[method-assign]
    return trainer.train(settings)


def _seconds() -> float:
    if (
        os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        or Path(os.environ.get("RELEASE", "/nowhere")).exists()
    ):
        return 0.0
    seconds = float(os.environ.get("STEP_SECONDS", "0"))
    if int(os.environ.get("SLURM_PROCID", "0")) == int(os.environ.get("SLURM_NTASKS", "1")) - 1:
        seconds += float(os.environ.get("SKEW_SECONDS", "0"))
    return seconds
