"""A trial's logger for MLflow: the rows of ``metrics.csv``, pictures, tables and the best model.

What the training loop logs is handed to a thread, which sends what has gathered every few seconds:
a call costs the store some milliseconds, whether it brings one value or a thousand.

Example::

    tracker = MlflowTrialLogger(settings, folder)
    tracker.resume_from(step=120)       # sends rows that are missing
    tracker.log_metrics({"train/loss": 0.3}, step=130)
    tracker.end("done", [folder.path / "best"])
"""

from __future__ import annotations

import math
import os
import posixpath
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers.logger import DummyExperiment, Logger
from pytorch_lightning.utilities import rank_zero_only

from mlmodeldev.lease import LostLease
from mlmodeldev.tracking.background import BackgroundCalls
from mlmodeldev.tracking.mlflow_files import (
    Sending,
    keep_drawing,
    keep_file,
    keep_missing_pictures,
    keep_tables,
)
from mlmodeldev.tracking.mlflow_model import keep_model
from mlmodeldev.tracking.mlflow_run import UPLOADED_ENTRY, TimedRow, TrialRun, rows_of
from mlmodeldev.tracking.mlflow_store import address, import_client, reason
from mlmodeldev.tracking.pictures import pass_over

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

GATHER_SECONDS = 3.0
"""How long rows gather before they are sent together."""
RETRY_SECONDS = 30.0
"""After a failure, until the store is tried again."""
OPEN_SECONDS = 20.0
"""How long the start of a trial waits for the store; later the thread goes on trying."""
FINISH_SECONDS = 60.0
"""How long the end of a trial waits for the store; ``MLFLOW_FINISH_TIMEOUT`` sets another."""
LEAVE_SECONDS = 15.0
"""The same where the trial is interrupted, and will come back."""
MOST_WAITING = 10_000
"""Rows kept in memory while the store is away; older ones are read from ``metrics.csv`` again."""

AFTERWARDS = "training goes on, and it is tried again"


class MlflowTrialLogger(Logger):
    """Write to one run of MLflow.

    A failure of MLflow never fails the trial: it is a warning, once, and tried again later. What is
    missing at the end, the next attempt or ``sync`` sends.

    Args:
        settings: the trial's.
        folder: the trial's.
        afterwards: what the warning says of what happens then.

    Raises:
        UsageError: the package is not installed, or the address is none.
    """

    uploaded_entry = UPLOADED_ENTRY
    """Name in ``trial.json`` of whether MLflow has everything."""

    def __init__(
        self, settings: Settings, folder: TrialFolder, afterwards: str = AFTERWARDS
    ) -> None:
        super().__init__()
        self._afterwards = afterwards
        import_client()  # here, for no process may be forked while a thread imports
        address(settings)
        self.settings, self.folder = settings, folder
        self._run: TrialRun | None = None
        self._lock = threading.Lock()
        self._rows: list[TimedRow] = []
        self._from_file_before: float | None = None
        self._unsent: list[Sending] = [keep_file(folder.path / "config.yaml", None)]
        self._tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self._step, self._retry_at = 0, 0.0
        self._failed = self._warned = self._taken_over = self._complete = False
        self._gathering = False
        self._hurry = threading.Event()
        self._background = BackgroundCalls("mlflow-rows")
        self._background.add(self._deliver)
        if not self._background.drain(OPEN_SECONDS):
            self._warn(f"no answer within {OPEN_SECONDS:.0f} s")

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "mlflow"

    @property
    def version(self) -> str:
        """The run's id; empty while there is none."""
        return self._run.id if self._run else ""

    @property
    def run_id(self) -> str:
        """The run's id, as a model passes it to ``self.logger.experiment``."""
        return self.version

    @property
    def experiment(self) -> Any:
        """MLflow's client, as a model reaches it; one that takes any call while there is no run."""
        return self._run.client if self._run else DummyExperiment()

    # --- rows

    @rank_zero_only
    def resume_from(self, step: int) -> None:
        """Send the rows of ``metrics.csv`` before ``step`` that MLflow lacks, and its pictures."""
        with self._lock:
            self._from_file_before = step
        self._step = step
        self._add(keep_missing_pictures(self.folder.path))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take one row, to be sent unless MLflow has it."""
        self._step = int(step or 0)
        row = TimedRow(dict(metrics), self._step, int(1000 * time.time()))
        with self._lock:
            self._rows.append(row)
            self._shorten()
            gathering, self._gathering = self._gathering, True
        if not gathering:
            self._background.add(self._gather)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run was begun with the settings."""

    # --- pictures, tables, files

    @rank_zero_only
    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, **options: Sequence[Any]
    ) -> None:
        """Keep pictures: files under their names, arrays and figures under key and step."""
        at = self._step if step is None else step
        for number, image in enumerate(images):
            if isinstance(image, str | Path):
                self._add(keep_file(Path(image), posixpath.dirname(key) or key))
                continue
            try:
                sending = keep_drawing(image, f"{key}/step-{at:08d}-{number}.png")
            except (ValueError, TypeError, OSError) as error:
                pass_over("MLflow", key, error)
            else:
                self._add(sending)

    @rank_zero_only
    def log_table(
        self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None
    ) -> None:
        """Keep a table, as it was last; it is sent at the end."""
        self._tables[key] = (list(columns), data)

    @rank_zero_only
    def note(self, metadata: Mapping[str, Any]) -> None:
        """Show metadata as tags of the run."""
        values = dict(metadata)
        self._add(lambda run: run.set_tags(values))

    @rank_zero_only
    def keep_file(self, file: Path) -> None:
        """Keep a file of the trial's folder among the run's artifacts."""
        self._add(keep_file(file, None))

    # --- the end

    @rank_zero_only
    def end(self, state: str, models: Sequence[Path] = ()) -> bool:
        """Tell how the trial ended; return whether MLflow has everything.

        Args:
            state: of the trial.
            models: exported folders to keep as logged models, by the folders' names.
        """
        self._hurry.set()
        self._background.add(partial(self._end, state, [*models]))
        seconds = _patience(state)
        in_time = self._background.drain(seconds)
        if not in_time:
            self._warn(f"not all of them within {seconds:.0f} s")
        return in_time and self._complete

    def _end(self, state: str, models: Sequence[Path]) -> None:
        self._retry_at = 0.0
        if state != "interrupted":
            self._unsent += [keep_tables(self._tables), self._send_best]
            self._unsent += [partial(self._send_model, folder) for folder in models]
        self._unsent.append(lambda run: run.end(state))
        self._deliver()
        self._complete = not (self._failed or self._taken_over)

    def _send_best(self, run: TrialRun) -> None:
        metric = self.folder.read().get("metric") or {}
        name, value = metric.get("name"), metric.get("value")
        if name and value is not None:
            row = TimedRow({f"best/{name}": value}, self._step, int(1000 * time.time()))
            run.send([row])

    def _send_model(self, folder: Path, run: TrialRun) -> None:
        keep_model(run, folder, self.folder.read(), self._step)

    # --- the thread's

    def _add(self, sending: Sending) -> None:
        def work() -> None:
            self._unsent.append(sending)
            self._deliver()

        self._background.add(work)

    def _gather(self) -> None:
        self._hurry.wait(GATHER_SECONDS)
        with self._lock:
            self._gathering = False
        self._deliver()

    def _deliver(self) -> None:
        """Send all that waits; what can't be sent waits on."""
        if self._taken_over or time.monotonic() < self._retry_at:
            return
        failed, self._failed = self._failed, False
        try:
            self.folder.check_owner()
            if self._run is None:
                self._run = TrialRun.open(self.settings, self.folder)
            elif failed:
                self._run.refresh()
            self._send_rows(self._run)
        except LostLease:
            self._taken_over = True  # a later attempt sends these rows, which it makes as well
            return
        except Exception as error:
            self._note_failure(error)
            return
        sendings, self._unsent = self._unsent, []
        for sending in sendings:
            try:
                sending(self._run)
            except Exception as error:  # one file's trouble is not the others'
                self._unsent.append(sending)
                self._note_failure(error)

    def _send_rows(self, run: TrialRun) -> None:
        with self._lock:
            rows, self._rows = self._rows, []
            before, self._from_file_before = self._from_file_before, None
        try:
            of_file = rows_of(self.folder.path / "metrics.csv", before) if before else []
            run.send([*of_file, *rows])
        except BaseException:
            with self._lock:
                if self._from_file_before is None:
                    self._from_file_before = before
                self._rows[:0] = rows
                self._shorten()
            raise

    def _shorten(self) -> None:
        """Keep as many rows in memory as there may be; older ones lie in the file."""
        if len(self._rows) > MOST_WAITING:
            del self._rows[: -MOST_WAITING // 2]
            self._from_file_before = math.inf

    def _note_failure(self, error: Exception) -> None:
        self._failed = True
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._warn(reason(error))

    def _warn(self, shown: str) -> None:
        """Say once that MLflow is away, and why."""
        if self._warned:
            return
        self._warned = True
        print(
            f"MLflow: does not take the trial's rows ({shown}); {self._afterwards}",
            file=sys.stderr,
        )


def _patience(state: str) -> float:
    most = float(os.environ.get("MLFLOW_FINISH_TIMEOUT") or FINISH_SECONDS)
    return min(most, LEAVE_SECONDS) if state == "interrupted" else most
