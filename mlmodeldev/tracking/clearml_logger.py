"""A trial's logger for ClearML: the rows of ``metrics.csv``, pictures, tables and the best model.

Example::

    tracker = ClearmlTrialLogger(settings, folder)
    tracker.resume_from(step=120)       # sends rows that are missing
    tracker.log_metrics({"train/loss": 0.3}, step=130)
    tracker.end("done", [folder.path / "best"])
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers.logger import DummyExperiment
from pytorch_lightning.utilities import rank_zero_only

from mlmodeldev.machine import seconds_in
from mlmodeldev.tracking.clearml_offline import OfflineTask, forget_session
from mlmodeldev.tracking.clearml_plots import histogram_plot, table_plot
from mlmodeldev.tracking.clearml_server import (
    check_package,
    fetch_task,
    is_configured,
    offline_by_environment,
    server_answers,
)
from mlmodeldev.tracking.clearml_task import UPLOADED_ENTRY, TrialTask
from mlmodeldev.tracking.delivery import AFTERWARDS, DeliveringLogger, Pace
from mlmodeldev.tracking.pictures import as_picture, pass_over
from mlmodeldev.tracking.timed_rows import TimedRow

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

Task = TrialTask | OfflineTask
Sending = Callable[[Task], None]

GATHER_SECONDS = 3.0
"""How long rows gather before they are sent together."""
RETRY_SECONDS = 30.0
"""After a failure, until the server is tried again."""
OPEN_SECONDS = 0.25
"""How long the start of a trial waits for the server; later the thread goes on trying."""
FINISH_SECONDS = 60.0
"""How long the end waits for a server that answers; ``CLEARML_FINISH_TIMEOUT`` sets another."""
LEAVE_SECONDS = 15.0
"""The same where the trial is interrupted, and will come back."""
SIGN_SECONDS = 0.5
"""How long the end waits, twice, for a server that gives no sign of itself."""
MOST_WAITING = 10_000
"""Rows kept in memory while the server is away; older ones are read from ``metrics.csv`` again."""


_AWAY = re.compile(r"ConnectionError|Max retries exceeded|Timeout|Connection refused|not resolve")
_HOST = re.compile(r"host='([^']*)'")


class ClearmlTrialLogger(DeliveringLogger[Task]):
    """Write to one task of ClearML, or to a session that is imported later.

    Args:
        settings: the trial's.
        folder: the trial's.
        afterwards: what the warning says of what happens after a failure.
        goes_online: whether ``logger.clearml.offline`` counts for nothing.

    Raises:
        UsageError: the package is not installed.
    """

    title, uploaded_entry = "ClearML", UPLOADED_ENTRY

    def __init__(
        self,
        settings: Settings,
        folder: TrialFolder,
        afterwards: str = AFTERWARDS,
        goes_online: bool = False,
    ) -> None:
        self._offline, self._is_patient = why_offline(settings, goes_online), goes_online
        if self._offline:
            print(f"ClearML: offline, because {self._offline}; the trial leaves a session for it")
        self._own_object = _OwnTask(self)
        super().__init__(settings, folder, afterwards)

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "clearml"

    @property
    def version(self) -> str:
        """The task's id; empty while there is none."""
        return self._run.id if self._run else ""

    @property
    def experiment(self) -> Any:
        """The task as ClearML's own object; one that takes any call while there is no task.

        It is fetched when it is first used. What is reported by it goes to ClearML by ways of its
        own, and again where steps are trained again.
        """
        return self._own_object if isinstance(self._run, TrialTask) else DummyExperiment()

    # --- what training calls

    @rank_zero_only
    def resume_from(self, step: float) -> None:
        """Send the rows of ``metrics.csv`` before ``step`` that ClearML lacks, and its pictures."""
        super().resume_from(step)
        self._add(partial(_keep_missing_pictures, self.folder.path))

    @rank_zero_only
    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, **options: Sequence[Any]
    ) -> None:
        """Keep pictures at a step: files, arrays, Pillow's, figures of matplotlib."""
        at = self._step if step is None else step
        for number, image in enumerate(images):
            name = key if number == 0 else f"{key}-{number}"
            if isinstance(image, str | Path):
                self._add(partial(_keep_file, Path(image), name, at))
                continue
            try:
                drawing = _png(image)
            except (ValueError, TypeError, OSError) as error:
                pass_over("ClearML", name, error)
            else:
                self._add(partial(_keep_drawing, drawing, name, at))

    @rank_zero_only
    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Keep a histogram of values at a step."""
        at = self._step if step is None else step
        plot = histogram_plot(key, values)
        self._add(lambda task: task.send_plot(key, at, plot))

    @rank_zero_only
    def note(self, metadata: Mapping[str, Any]) -> None:
        """Show metadata as hyper-parameters, and what the trial began with as an input model."""
        values = dict(metadata)
        parent = self.folder.read().get("parent")

        def send(task: Task) -> None:
            for section, inner in values.items():
                task.show(section, inner if isinstance(inner, Mapping) else {section: inner})

        self._add(send)
        if parent:
            self._add(lambda task: task.tell_input(parent))

    @rank_zero_only
    def keep_file(self, file: Path) -> None:
        """Nothing: ClearML shows the settings, and uncommitted changes are not sent to it."""

    # --- what ClearML is

    @property
    def _pace(self) -> Pace:
        finish = seconds_in("CLEARML_FINISH_TIMEOUT", FINISH_SECONDS)
        return Pace(
            GATHER_SECONDS, RETRY_SECONDS, OPEN_SECONDS, finish, LEAVE_SECONDS, MOST_WAITING
        )

    def _open(self) -> Task:
        kind = OfflineTask if self._offline else TrialTask
        return kind.open(self.settings, self.folder)

    def _send(self, run: Task, rows: Sequence[TimedRow]) -> None:
        run.send(rows)

    def _last_things(self, state: str, models: Sequence[Path]) -> list[Sending]:
        def end(task: Task) -> None:
            task.end(state)

        if state == "interrupted":
            return [end]
        of_models: list[Sending] = [partial(self._send_model, folder) for folder in models]
        return [self._send_tables, self._send_best, *of_models, end]

    def _end(self, state: str, models: Sequence[Path]) -> None:
        super()._end(state, models)
        if self._offline:
            self._complete = False  # until the session is imported, or `sync` has sent all
        elif self._complete and state != "interrupted":
            forget_session(self.folder.path)

    def _is_away(self, error: Exception) -> bool:
        return bool(_AWAY.search(str(error)))

    def _cause(self, error: Exception) -> str:
        """Return what is the matter; the client shows urllib3's words of a server that is away."""
        if not self._is_away(error):
            return super()._cause(error)
        host = _HOST.search(str(error))
        return f"the server {host[1] if host else ''} does not answer".replace("  ", " ")

    def _wait(self, seconds: float) -> str:
        """Wait as long as the server gives a sign of itself; `sync` holds no trial up and waits."""
        if self._offline or self._is_patient:
            return super()._wait(seconds)
        if self._background.drain(min(seconds, SIGN_SECONDS)):
            return ""
        if not server_answers(SIGN_SECONDS):
            return "the server gives no sign of itself"
        return super()._wait(seconds)

    def _send_tables(self, task: Task) -> None:
        for key, (columns, data) in self._tables.items():
            task.send_plot(key, self._step, table_plot(key, columns, data))

    def _send_best(self, task: Task) -> None:
        metric = self.folder.read().get("metric") or {}
        name, value = metric.get("name"), metric.get("value")
        if name and value is not None:
            task.send_single(f"best/{name}", float(value))

    def _send_model(self, best: Path, task: Task) -> None:
        task.keep_model(best, self._step)


class _OwnTask:
    """ClearML's own ``Task`` of a trial, fetched when something of it is used."""

    def __init__(self, tracker: ClearmlTrialLogger) -> None:
        self._tracker, self._task = tracker, None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._task is None:
            try:
                self._task = fetch_task(self._tracker.version)
            except Exception as error:  # of the tracker, which must not end the trial
                self._tracker.warn(error)
                return getattr(DummyExperiment(), name)
        return getattr(self._task, name)


def why_offline(settings: Settings, goes_online: bool = False) -> str:
    """Return why nothing is sent to a server; empty: it is.

    Raises:
        UsageError: the package is not installed.
    """
    check_package()
    chosen = settings.logger.clearml
    assert chosen is not None
    if chosen.offline and not goes_online:
        return "logger.clearml.offline=true"
    if offline_by_environment():
        return "CLEARML_OFFLINE_MODE is set"
    if not is_configured():
        return "there are no keys of a server (clearml-init, or CLEARML_API_ACCESS_KEY)"
    return ""


def _keep_file(file: Path, name: str, step: int, task: Task) -> None:
    task.keep_picture(file, name, step)


def _keep_drawing(content: bytes, name: str, step: int, task: Task) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"step-{step:08d}.png"
        file.write_bytes(content)
        task.keep_picture(file, name, step)


def _keep_missing_pictures(folder: Path, task: Task) -> None:
    """Send the heat maps of earlier attempts that the task lacks, at the steps of their epochs."""
    pictures = sorted(folder.glob("cka/*/epoch-*.png"))
    if not pictures:
        return
    steps = _steps_of_epochs(folder / "metrics.csv")
    for picture in pictures:
        step = steps.get(int(picture.stem.partition("-")[2]) - 1)  # rows count epochs from 0
        if step is not None:
            task.keep_picture(picture, f"cka/{picture.parent.name}/heatmap", step)


def _steps_of_epochs(file: Path) -> dict[int, int]:
    """Return the last step of each epoch in ``metrics.csv``."""
    try:
        with file.open(newline="") as opened:
            rows = [*csv.DictReader(opened)]
        return {int(float(row["epoch"])): int(row["step"]) for row in rows if row.get("epoch")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _png(image: Any) -> bytes:
    """Return a picture as a PNG file, as it is now."""
    drawn = io.BytesIO()
    as_picture(image).save(drawn, format="PNG")
    return drawn.getvalue()
