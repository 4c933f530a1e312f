"""A trial's logger for W&B: the rows of ``metrics.csv``, each once, whatever interrupts the trial.

Which rows are sent, and as what, is decided in `mlmodeldev.tracking.wandb_rows`. What the training
loop logs is handed to a thread, which talks to the client.

Example::

    tracker = WandbTrialLogger(run, folder / "metrics.csv", monitor="val/accuracy", mode="max")
    tracker.resume_from(step=120)       # sends rows that are missing
    tracker.log_metrics({"train/loss": 0.3}, step=130)
    tracker.end("done")
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from mlmodeldev.machine import seconds_in
from mlmodeldev.tracking.background import BackgroundCalls
from mlmodeldev.tracking.metadata import log_model
from mlmodeldev.tracking.pictures import pass_over
from mlmodeldev.tracking.wandb_rows import Row, RunRows, heat_maps
from mlmodeldev.trial.record import STEP

EXTRA_SECONDS = 20.0
"""How long the end of a trial waits until the client has taken its tables; they are in its folder
anyway."""


LEFT_BEHIND_SECONDS = 300.0
"""How much older than the newest a picture may be that the attempt before may not have sent."""


class WandbTrialLogger(Logger):
    """Write to one W&B run.

    A failure of the client never fails the trial: it is told once, and nothing more is sent;
    ``metrics.csv`` has all rows, and the next attempt or ``sync`` sends them.

    Args:
        run: of `wandb.init`; its ``starting_step`` tells how many rows W&B has.
        file: the trial's ``metrics.csv``.
        monitor: metric whose best value the run's summary shows.
        mode: whether ``max`` or ``min`` of it is better.
    """

    uploaded_entry = "uploaded"
    """Name in ``trial.json`` of whether W&B has everything."""

    def __init__(self, run: Any, file: Path, monitor: str = "", mode: str = "max") -> None:
        super().__init__()
        self.run, self.file = run, file
        self._rows = RunRows(run, monitor, mode)
        self._media: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self._lost = False
        self._background = BackgroundCalls("wandb-rows")
        with self._guarded():
            self._rows.define_metrics()

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "wandb"

    @property
    def version(self) -> str:
        """The run's id."""
        return str(self.run.id)

    @property
    def experiment(self) -> Any:
        """The run, as a model reaches it by ``self.logger.experiment``."""
        return RunOfModel(self.run, self._extra)

    # --- rows

    @rank_zero_only
    def resume_from(self, step: int) -> None:
        """Send the rows of ``metrics.csv`` before ``step`` that W&B lacks; the others come anew."""
        self.catch_up(before=step)
        if step:
            self._background.add(self._send_left_behind)

    def catch_up(self, before: float = math.inf) -> int:
        """Send rows that were written since the last call; return how many rows there are."""
        for metrics in self._rows.unnumbered(self.file):
            step = int(metrics.pop("step"))
            if step < before:
                if self._rows.monitor in metrics:
                    for key, picture in heat_maps(self.file.parent, metrics).items():
                        self._media.setdefault(key, ([picture], {}))
                self.log_metrics(metrics, step)
        return self._rows.count

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send one row, unless W&B has it, with the pictures that travel with it."""
        row = self._rows.number(metrics, int(step or 0))
        media, self._media = self._media, {}
        extra = dict(self._extra)
        self._extra.clear()
        if row is not None:
            self._background.add(partial(self._send_row, row, media, extra))

    def _send_row(self, row: Row, media: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        with self._guarded():
            self._rows.send(row, {**extra, **_pictures(media)})

    def _send_left_behind(self) -> None:
        """Send the newest pictures of the attempt before, which may have been killed.

        The client sends a row before the files of its pictures, and forgets them when it is killed.
        """
        with self._guarded():
            attempts = self.file.parent.glob(f"wandb/run-*-{self.run.id}/files")
            before = [each for each in sorted(attempts) if each != Path(self.run.dir)]
            files = list(before[-1].glob("media/**/*.*")) if before else []
            newest = max((file.stat().st_mtime for file in files), default=0.0)
            for file in files:
                if file.stat().st_mtime > newest - LEFT_BEHIND_SECONDS:
                    self.run.save(str(file), base_path=str(before[-1]), policy="now")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run was begun with the settings."""

    # --- pictures travel with the next row, tables come at the end

    @rank_zero_only
    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, **options: Sequence[Any]
    ) -> None:
        """Show pictures (files or arrays) under one key, with a slider over the rows."""
        self._media[key] = (list(images), options)

    @rank_zero_only
    def log_table(
        self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None
    ) -> None:
        """Show a table, as it was last; it is sent at the end.

        The client asks the server before it sends one, and would hold the training up while the
        server is gone.
        """
        self._tables[key] = (list(columns), data)

    # --- metadata and files

    @rank_zero_only
    def note(self, metadata: Mapping[str, Any]) -> None:
        """Show metadata among the settings, in place of those of the same name."""
        config = dict(metadata)

        def send() -> None:
            with self._guarded():
                self.run.config.update(config, allow_val_change=True)

        self._background.add(send)

    @rank_zero_only
    def keep_file(self, file: Path) -> None:
        """Show a file of the trial's folder among the run's files."""

        def send() -> None:
            with self._guarded():
                self.run.save(str(file), base_path=str(file.parent), policy="now")

        if file.is_file():
            self._background.add(send)

    # --- the end

    @rank_zero_only
    def end(self, state: str, models: Sequence[Path] = ()) -> bool:
        """Tell how the trial ended; return whether W&B has everything.

        Args:
            state: of the trial.
            models: exported folders to keep as artifacts; each one's name is its alias.
        """
        in_time = False
        if not self._background.drain(_patience()):
            self._lost = True
        with self._guarded():
            for key, value in {**self._extra, **_pictures(self._media)}.items():
                if key != self._rows.monitor:  # of which the summary shows the best
                    self.run.summary[key] = value
            in_time = self._rows.finish(state, partial(self._send_extras, models))
        is_offline = bool(getattr(self.run, "offline", False))
        return in_time and not self._lost and not is_offline  # sync uploads that

    def _send_extras(self, models: Sequence[Path]) -> None:
        """Send what the client asks the server about before it takes it."""

        def send() -> None:
            import wandb

            with contextlib.suppress(Exception):
                for key, (columns, data) in self._tables.items():
                    self.run.summary[key] = wandb.Table(columns=[*columns], data=data)
                for folder in models:
                    log_model(self.run, folder)

        if self._tables or models:
            self._background.add(send)
            self._background.drain(min(EXTRA_SECONDS, _patience()))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Go on without W&B when its client fails: it may be killed, or its disk full."""
        if self._lost:
            with contextlib.suppress(Exception):
                yield
            return
        try:
            yield
        except Exception as error:
            self._lost = True
            print(
                f"Weights & Biases: gone ({type(error).__name__}: {error}); training goes on,"
                " 'python slurm/SlurmTrain.py sync' uploads the rest",
                file=sys.stderr,
            )


def _patience() -> float:
    """Return how many seconds the end of a trial may wait for the client."""
    return seconds_in("WANDB_FINISH_TIMEOUT", 60.0)


def _pictures(media: Mapping[str, Any]) -> dict[str, Any]:
    import wandb

    made: dict[str, Any] = {}
    for key, (images, options) in media.items():
        try:
            made[key] = [
                wandb.Image(image, **{name: values[number] for name, values in options.items()})
                for number, image in enumerate(images)
            ]
        except Exception as error:  # the row that it travels with must not be lost with it
            pass_over("Weights & Biases", key, error)
    return made


def _is_of_rows(name: str) -> bool:
    """Return whether a name says where a row lies; W&B's own begin with an underscore."""
    return name in (STEP, "epoch") or name.startswith("_")


class RunOfModel:
    """The client's run, of which ``log`` adds to the next row instead of making one of its own.

    A row's number is its step in W&B; rows that a model makes would shift all later ones.

    Args:
        run: of `wandb.init`.
        extra: what travels with the next row, by name.
    """

    def __init__(self, run: Any, extra: dict[str, Any]) -> None:
        self._run, self._extra = run, extra

    def log(self, data: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Show values, pictures or tables beside the next row of metrics.

        The row's own step, epoch and time stay: the charts' axis, and by which rows are compared
        when the trial goes on.
        """
        self._extra.update((k, v) for k, v in data.items() if not _is_of_rows(k))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)
