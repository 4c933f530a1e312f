"""``metrics.csv``: every logged row in a plain file, written by every trial.

Lightning's own CSVLogger deletes the earlier rows when a trial resumes; this one goes on, and
drops the rows that the resumed trial is about to write again. ``time/logged`` says when each row
was written, so that W&B can show it though it is uploaded later.

Example::

    logger = MetricsFile(folder / "metrics.csv")
    logger.resume_from(step=120, rows=13)   # later rows are dropped

Where two attempts are alive at once (Slurm gave a node up whose processes live on), the earlier one
keeps writing for the moment until it looks who owns the trial. Its rows go to the file that it has
open, which the later attempt has replaced: they are never seen.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from mlmodeldev.atomic import write_text, writing_to
from mlmodeldev.trial.record import TIME, csv_rows, read_text_rows

log = logging.getLogger(__name__)

_FIRST = ["epoch", "step"]


class _NumbersOnly(type(Path())):  # type: ignore[misc]
    """A path that passes over what a model hands to ``logger.experiment`` of a tracker.

    A model that writes pictures to each of its loggers would otherwise end in an error here.
    """

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith(("add_", "log")):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _say_once(f"logger.experiment.{name}")
        return lambda *_, **__: None


@functools.cache
def _say_once(name: str) -> None:
    log.warning("metrics.csv holds numbers of self.log: %s is passed over", name)


class MetricsFile(Logger):
    """Append rows to a CSV file; a new metric adds a column.

    Floats are written so that reading them gives the same number (``repr``).

    Args:
        file: the CSV file.
        clock: seconds since 1970.
        check_owner: raises where the trial belongs to another attempt; called before the file is
            written anew, and where it was replaced by someone else.

    Attributes:
        rows: how many the file has.
        last_step: the largest step of those that were there before; -1: there were none.
    """

    def __init__(
        self,
        file: Path,
        clock: Callable[[], float] = time.time,
        check_owner: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.file, self.clock, self.check_owner = file, clock, check_owner
        self.rows, self.last_step = 0, -1
        self._columns: list[str] = []
        self._open: IO[str] | None = None

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """There is one file a trial."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> Path:
        """The file; of what a tracker has more, it passes ``add_...`` and ``log...`` over."""
        return _NumbersOnly(self.file)

    @rank_zero_only
    def resume_from(self, step: int, rows: int | None = None) -> None:
        """Keep the rows that there were at a checkpoint; drop a torn last line.

        Args:
            step: of the rows that come next.
            rows: how many there were; a model may have logged some at steps of its own. None: of a
                checkpoint that does not say, those of earlier steps are kept.
        """
        self._columns, written = read_text_rows(self.file)
        if rows is None:
            written = [row for row in written if int(row["step"]) < step]
        self._write_all(written[:rows])
        self.last_step = max((int(row["step"]) for row in written[:rows]), default=-1)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one row."""
        row = {name: _text(value) for name, value in metrics.items()}
        row = {"epoch": "", **row, "step": str(step or 0), TIME: f"{self.clock():.3f}"}
        new = [name for name in row if name not in self._columns]
        if new or not self._is_current():
            self.check_owner()
            columns, rows = read_text_rows(self.file)
            self._columns = [*_FIRST, *sorted({*self._columns, *columns, *new} - set(_FIRST))]
            self._write_all([*rows, row])
            return
        assert self._open is not None
        with writing_to(self.file):
            self._open.write(csv_rows([row], self._columns))
            self._open.flush()
        self.rows += 1

    def log_image(self, key: str, images: Sequence[Any], *args: Any, **kwargs: Any) -> None:
        """Pass pictures over; those that are files need no other place."""
        if not all(isinstance(image, str | Path) for image in images):
            _say_once("logger.log_image")

    @rank_zero_only
    def bring_to_disk(self) -> None:
        """Let the rows survive a power cut, before a checkpoint that counts on them does.

        Raises:
            UsageError: the disk takes no more.
        """
        if self._open is not None:
            with writing_to(self.file):
                os.fsync(self._open.fileno())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file; after a success its rows are on the disk."""
        if status == "success":
            self.bring_to_disk()
        self._close()

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` holds them."""

    def _is_current(self) -> bool:
        """Whether the file that is open still has its name."""
        if self._open is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._open.fileno()), self.file.stat())
        except OSError:
            return False

    def _write_all(self, rows: list[dict[str, str]]) -> None:
        self._close()
        if self._columns:
            header = csv_rows([{name: name for name in self._columns}], self._columns)
            write_text(self.file, header + csv_rows(rows, self._columns))
            with writing_to(self.file):
                self._open = self.file.open("a", encoding="utf-8")
        self.rows = len(rows)

    def _close(self) -> None:
        if self._open is not None:
            with contextlib.suppress(OSError):  # every row was flushed, and NFS may have lost it
                self._open.close()
            self._open = None


def _text(value: Any) -> str:
    number = value.item() if hasattr(value, "item") else value
    return repr(number) if isinstance(number, float) else str(number)
