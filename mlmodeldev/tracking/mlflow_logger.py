"""A trial's logger for MLflow: the rows of ``metrics.csv``, pictures, tables and the best model.

Example::

    tracker = MlflowTrialLogger(settings, folder)
    tracker.resume_from(step=120)       # sends rows that are missing
    tracker.log_metrics({"train/loss": 0.3}, step=130)
    tracker.end("done", [folder.path / "best"])
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers.logger import DummyExperiment
from pytorch_lightning.utilities import rank_zero_only

from mlmodeldev.machine import seconds_in
from mlmodeldev.tracking.delivery import AFTERWARDS, DeliveringLogger, Pace
from mlmodeldev.tracking.mlflow_files import (
    Sending,
    keep_drawing,
    keep_file,
    keep_missing_pictures,
    keep_tables,
)
from mlmodeldev.tracking.mlflow_model import keep_model
from mlmodeldev.tracking.mlflow_run import UPLOADED_ENTRY, TrialRun
from mlmodeldev.tracking.mlflow_store import address, cause, import_client
from mlmodeldev.tracking.pictures import pass_over
from mlmodeldev.tracking.timed_rows import TimedRow

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


class MlflowTrialLogger(DeliveringLogger[TrialRun]):
    """Write to one run of MLflow.

    Args:
        settings: the trial's.
        folder: the trial's.
        afterwards: what the warning says of what happens after a failure.

    Raises:
        UsageError: the package is not installed, or the address is none.
    """

    title, uploaded_entry = "MLflow", UPLOADED_ENTRY

    def __init__(
        self, settings: Settings, folder: TrialFolder, afterwards: str = AFTERWARDS
    ) -> None:
        import_client()  # here, for no process may be forked while a thread imports
        address(settings)
        super().__init__(settings, folder, afterwards)

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

    @rank_zero_only
    def resume_from(self, step: float) -> None:
        """Send the rows of ``metrics.csv`` before ``step`` that MLflow lacks, and its pictures."""
        super().resume_from(step)
        self._add(keep_missing_pictures(self.folder.path))

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
    def note(self, metadata: Mapping[str, Any]) -> None:
        """Show metadata as tags of the run."""
        values = dict(metadata)
        self._add(lambda run: run.set_tags(values))

    @rank_zero_only
    def keep_file(self, file: Path) -> None:
        """Keep a file of the trial's folder among the run's artifacts."""
        self._add(keep_file(file, None))

    # --- what MLflow is

    @property
    def _pace(self) -> Pace:
        finish = seconds_in("MLFLOW_FINISH_TIMEOUT", FINISH_SECONDS)
        return Pace(
            GATHER_SECONDS, RETRY_SECONDS, OPEN_SECONDS, finish, LEAVE_SECONDS, MOST_WAITING
        )

    def _first_things(self) -> list[Sending]:
        return [keep_file(self.folder.path / "config.yaml", None)]

    def _note_slow_start(self) -> None:
        self._warn(f"no answer within {OPEN_SECONDS:.0f} s")

    def _open(self) -> TrialRun:
        return TrialRun.open(self.settings, self.folder)

    def _refresh(self, run: TrialRun) -> None:
        run.refresh()

    def _send(self, run: TrialRun, rows: Sequence[TimedRow]) -> None:
        run.send(rows)

    def _last_things(self, state: str, models: Sequence[Path]) -> list[Sending]:
        def end(run: TrialRun) -> None:
            run.end(state)

        if state == "interrupted":
            return [end]
        of_models: list[Sending] = [partial(self._send_model, folder) for folder in models]
        return [keep_tables(self._tables), self._send_best, *of_models, end]

    def _cause(self, error: Exception) -> str:
        return cause(error)

    def _send_best(self, run: TrialRun) -> None:
        metric = self.folder.read().get("metric") or {}
        name, value = metric.get("name"), metric.get("value")
        if name and value is not None:
            row = TimedRow({f"best/{name}": value}, self._step, int(1000 * time.time()))
            run.send([row])

    def _send_model(self, folder: Path, run: TrialRun) -> None:
        keep_model(run, folder, self.folder.read(), self._step)
