"""TensorBoard's files of a trial that may be killed and go on: each step is shown once.

Example::

    logger = TensorBoardFiles(folder)     # writes FOLDER/tensorboard/events.*
    logger.resume_from(step=120)          # TensorBoard forgets what it has of steps 120 and later
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyExperiment
from pytorch_lightning.utilities import rank_zero_only

from mlmodeldev.tracking.background import BackgroundCalls
from mlmodeldev.tracking.pictures import as_picture, pass_over
from mlmodeldev.trial.record import TIME, read_rows

FINISH_SECONDS = 60.0
"""How long the end of a trial waits for a file system that does not answer."""


class TensorBoardFiles(TensorBoardLogger):
    """Lightning's logger, which by itself loses two minutes to a kill and shows steps twice.

    A thread writes pictures, whose encoding takes longer than many a step.

    A failure (a full disk, a folder that can't be made) never fails the trial: it is said once, and
    nothing more is written.

    Args:
        folder: the trial's.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), name="", version="tensorboard")
        self.folder = folder
        self._step = 0
        self._lost = False
        self._background = BackgroundCalls("tensorboard-pictures")

    @property
    def experiment(self) -> Any:
        """The writer; one that takes any call where there is none any more."""
        if not self._lost:
            with self._guarded():
                return super().experiment
        return DummyExperiment()

    @rank_zero_only
    def resume_from(
        self, step: int, validation_due: bool = False, before: int | None = None
    ) -> None:
        """Let the file that is about to be begun replace earlier rows of ``step`` and later.

        Where there is no file yet, the rows of ``metrics.csv`` before ``step`` are written. Where a
        validation of the last step comes again, all from the last row on is replaced, for its
        pictures have the step of that; the rows are those of ``metrics.csv`` again.

        Args:
            step: of the next row.
            validation_due: whether a validation of the last step comes again.
            before: rows of this step and later are no part of the trial; None: of ``step``.
        """
        kept = self._rows(step if before is None else before)
        last = min(kept[-1][0], step) if kept and validation_due else step
        self._kwargs["purge_step"] = last
        self._step = step
        with self._guarded():
            begun = any(Path(self.log_dir).glob("events.*"))
            for at, values in kept:
                if not begun or at >= last:
                    super().log_metrics(values, at)
            settings = self.folder / "config.yaml"
            if settings.is_file() and (step > 0 or not begun):
                text = textwrap.indent(settings.read_text(encoding="utf-8"), "    ")
                self.experiment.add_text("config.yaml", text, step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row, to the file at once: a kill must not lose one that a checkpoint is after."""
        self._step = int(step or 0)
        with self._guarded():
            super().log_metrics(metrics, step)
            self.experiment.flush()

    @rank_zero_only
    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, **options: Sequence[Any]
    ) -> None:
        """Show pictures (files, arrays or figures) under one key, with a slider over the steps."""
        at = self._step if step is None else step
        for number, image in enumerate(images):
            name = key if len(images) == 1 else f"{key}/{number}"
            try:
                picture = image if isinstance(image, str | Path) else as_picture(image)
            except (ValueError, TypeError, OSError) as error:
                pass_over("TensorBoard", name, error)
            else:
                self._background.add(partial(self._write_picture, name, picture, at))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file."""
        if not self._background.drain(FINISH_SECONDS):
            self._lose(f"nothing more was written within {FINISH_SECONDS:.0f} s")
            return
        with self._guarded():
            super().finalize(status)

    def _write_picture(self, name: str, image: Any, step: int) -> None:
        import numpy as np

        with self._guarded():
            pixels = np.asarray(as_picture(image).convert("RGB"))
            self.experiment.add_image(name, pixels, step, dataformats="HWC")

    def _rows(self, before: int) -> list[tuple[int, dict[str, float]]]:
        """Return the rows of ``metrics.csv`` before a step, each with its step."""
        rows = read_rows(self.folder / "metrics.csv")
        written = [(int(row["step"]), row) for row in rows]
        return [
            (step, {k: v for k, v in row.items() if k not in ("step", TIME)})
            for step, row in written
            if step < before
        ]

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Go on without TensorBoard's files when they can't be written."""
        try:
            yield
        except Exception as error:  # whatever its thread ran into
            cause = error.__cause__ or error  # Lightning says of each that the value is none
            self._lose(f"{type(cause).__name__}: {' '.join(str(cause).split())}")

    def _lose(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            print(
                f"TensorBoard: gone ({reason}); training goes on, and metrics.csv has every row",
                file=sys.stderr,
            )
