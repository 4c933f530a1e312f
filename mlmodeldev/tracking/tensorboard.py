"""TensorBoard's files of a trial that may be killed and go on: each step is shown once.

Example::

    logger = TensorBoardFiles(folder)     # writes FOLDER/tensorboard/events.*
    logger.resume_from(step=120)          # TensorBoard forgets what it has of steps 120 and later
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only


class TensorBoardFiles(TensorBoardLogger):
    """Lightning's logger, which by itself loses two minutes to a kill and shows steps twice."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), name="", version="tensorboard")

    def resume_from(self, step: int) -> None:
        """Let the file that is about to be begun replace earlier rows of ``step`` and later."""
        self._kwargs["purge_step"] = step

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row, to the file at once."""
        super().log_metrics(metrics, step)
        self.experiment.flush()
