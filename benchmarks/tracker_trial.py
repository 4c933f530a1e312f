"""One trial whose epochs log to the trackers in turn and not at all, and what its end costs.

    python -m benchmarks.tracker_trial logger=mlflow training.max_epochs=9

`benchmarks.trackers` runs it in a process of its own and reads the last line that it prints.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

MARK = "MEASURED "


@dataclass
class Measured:
    """What came out.

    Attributes:
        epochs: of each, whether it was logged, and CPU seconds: of the training thread in the
            trackers (``calls``) and in its batches (``thread``), and of the whole process in the
            batches and in what the trackers' threads had left to do (``process``).
        close: seconds that each tracker's end took.
        alone: seconds that the end of the same rows and models takes with the library alone.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    close: dict[str, float] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)


def main(overrides: list[str]) -> None:
    """Train, and print what was measured."""
    import torch

    import trainer
    from benchmarks.step_time import use_mlflow
    from mlmodeldev.callbacks import stack
    from mlmodeldev.settings.composition import compose_settings

    use_mlflow()
    torch.set_num_threads(1)
    settings, measured, make = compose_settings(overrides), Measured(), stack.make_callbacks
    turns = _turns(measured)
    with mock.patch.object(stack, "make_callbacks", lambda *a: [*make(*a), turns]):
        folder = trainer.train(settings).folder
    for name, close in _ALONE.items():
        if name in measured.close:
            measured.alone[name] = close(folder, _rows(folder))
    print(MARK + json.dumps(asdict(measured)))


def _turns(measured: Measured) -> Any:
    """Return a callback that switches the trackers on and off, epoch by epoch, and times all."""
    from pytorch_lightning import Callback, LightningModule, Trainer

    class Turns(Callback):
        def __init__(self) -> None:
            self.on, self.calls, self.nested = True, 0.0, False
            self.epoch: dict[str, Any] | None = None

        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trackers = trainer.loggers[:-1] or trainer.loggers  # metrics.csv only where alone
            for tracker in trackers:
                for name in ("log_metrics", "log_image", "log_table"):
                    if hasattr(tracker, name):
                        setattr(tracker, name, self._switched(getattr(tracker, name)))
                if hasattr(tracker, "end"):
                    tracker.end = _timed(tracker.end, measured.close, tracker.name)  # type: ignore[method-assign]

        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self._close(trainer)
            self.on, self.calls = trainer.current_epoch % 2 == 0, 0.0
            self.begun = time.thread_time(), time.process_time()

        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.epoch = {
                "thread": time.thread_time() - self.begun[0],
                "process": time.process_time() - self.begun[1],
            }

        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self._close(trainer)

        def _switched(self, call: Callable[..., None]) -> Callable[..., None]:
            def switched(*given: Any, **named: Any) -> None:
                if self.on:
                    begun = time.thread_time()
                    call(*given, **named)
                    self.calls += time.thread_time() - begun

            return switched

        def _close(self, trainer: Trainer) -> None:
            if self.epoch is None:
                return
            begun = time.process_time()
            for tracker in trainer.loggers:
                if hasattr(tracker, "_background"):
                    tracker._background.drain(60)
            self.epoch["process"] += time.process_time() - begun
            measured.epochs.append({**self.epoch, "on": self.on, "calls": self.calls})
            self.epoch = None

    return Turns()


def _timed(call: Callable[..., Any], seconds: dict[str, float], name: str) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*given, **named)
        finally:
            seconds[name] = time.perf_counter() - begun

    return timed


def _rows(folder: Path) -> list[dict[str, float]]:
    from mlmodeldev.trial.record import read_rows

    return read_rows(folder / "metrics.csv")


def _wandb_alone(folder: Path, rows: list[dict[str, float]]) -> float:
    import wandb

    run = wandb.init(project="alone", dir=str(folder), settings=wandb.Settings(silent=True))
    for number, row in enumerate(rows):
        run.log(row, step=number)
    begun = time.perf_counter()
    for name in ("best", "last"):
        artifact = wandb.Artifact(f"model-{run.id}", type="model")
        artifact.add_dir(str(folder / name), policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=[name])
    run.finish()
    return time.perf_counter() - begun


def _mlflow_alone(folder: Path, rows: list[dict[str, float]]) -> float:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder.parents[1]}/mlflow.db")
    with mlflow.start_run():
        for row in rows:
            values = {name: value for name, value in row.items() if "~" not in name}
            mlflow.log_metrics(values, step=int(row["step"]))
        begun = time.perf_counter()
        mlflow.log_artifacts(str(folder / "best"), "best")
    return time.perf_counter() - begun


_ALONE: dict[str, Callable[[Path, list[dict[str, float]]], float]] = {
    "wandb": _wandb_alone,
    "mlflow": _mlflow_alone,
}


if __name__ == "__main__":
    main(sys.argv[1:])
