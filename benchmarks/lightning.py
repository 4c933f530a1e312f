"""What ``train(settings)`` adds to Lightning, and Lightning to a hand-written loop.

    python -m benchmarks lightning

Four ways to train the same model on the same digits take turns, an epoch each, in threads of one
process of which one runs at a time: load of the machine and drift hit all alike. Each has one
thread of torch, whose CPU time is its own.

* the loop of `benchmarks.step_time`: a plain ``DataLoader``, fused AdamW, clipping, schedule;
* a bare Lightning ``Trainer``: no bar, no logger, no checkpoint, no summary;
* Lightning's defaults: progress bar, ``CSVLogger``, a checkpoint each epoch;
* ours: every default callback but CKA, metrics.csv, checkpoints to resume and best weights.

A step's time is from an epoch's first hook to its validation, divided by its batches; an epoch's is
from its first hook to the next one's, validation, logs and checkpoints included.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.step_time import PlainLoop, _plain_loader
from benchmarks.table import Goal, Table

ROUNDS = 16
LOOP, BARE, DEFAULTS, OURS = "hand-written loop", "bare Trainer", "Lightning's defaults", "ours"
STEP_LIMIT_MS = 1.0

Times = dict[str, list[tuple[float, float]]]
"""Of each way, for each round: CPU seconds of a step and of a whole epoch."""


def run(rounds: int = ROUNDS) -> Table:
    """Measure the four ways; compare them round by round."""
    times = measure(rounds)
    table = Table(
        "Over Lightning",
        ["way", "ms a step", "spread", "s an epoch", "spread", "ours to it, step", "epoch"],
        note=(
            "The digits, batches of 64, CPU time of one thread;"
            f" {rounds} epochs of each in turn. Medians; spread: the middle half. Ratios are"
            " medians over the rounds. An epoch has its validation, logs and checkpoints."
        ),
    )
    for way, rows in times.items():
        steps, epochs = ([row[which] for row in rows] for which in (0, 1))
        ratios = (
            [f"{ratio(times, way, which):.3f}" for which in (0, 1)] if way != OURS else ["", ""]
        )
        has_epoch = way != LOOP
        table.add(
            way, *_spread(steps, 1000, 2), *(_spread(epochs, 1, 3) if has_epoch else ("", "")),
            ratios[0], ratios[1] if has_epoch else "",
        )  # fmt: skip
    table.goals += [
        Goal("a step of ours beside a bare Trainer's", ratio(times, BARE, 0), 1.02),
        Goal("an epoch of ours beside Lightning's defaults", ratio(times, DEFAULTS, 1), 1.0),
        Goal(
            "a step of ours over the loop's", 1000 * difference(times, OURS), STEP_LIMIT_MS, " ms"
        ),
    ]
    return table


def _spread(values: list[float], factor: float, digits: int) -> tuple[str, str]:
    low, middle, high = (factor * each for each in statistics.quantiles(values, n=4))
    return f"{middle:.{digits}f}", f"{low:.{digits}f}–{high:.{digits}f}"


def ratio(times: Times, way: str, which: int) -> float:
    """Return the median over the rounds of ours to a way's: a step (0) or an epoch (1)."""
    pairs = zip(times[OURS], times[way], strict=True)
    return statistics.median(ours[which] / theirs[which] for ours, theirs in pairs)


def difference(times: Times, way: str) -> float:
    """Return the median seconds that a step of a way takes longer than the loop's."""
    pairs = zip(times[way], times[LOOP], strict=True)
    return statistics.median(mine[0] - plain[0] for mine, plain in pairs)


class Turns:
    """Lets one of several threads run at a time, each an epoch, and takes its times."""

    def __init__(self, names: list[str], rounds: int) -> None:
        self.seconds: Times = {name: [] for name in names}
        self.rounds = rounds
        self._order, self._at = names, 0
        self._changed = threading.Condition()
        self._begun: dict[str, float] = {}
        self._step: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """End this way's last epoch, wait for the others', begin the next."""
        import torch

        now = time.thread_time()
        if name in self._begun and name in self._step:
            self.seconds[name].append((self._step[name], now - self._begun[name]))
        self._pass_on(name)
        with self._changed:
            self._changed.wait_for(lambda: self._order[self._at] == name)
        torch.use_deterministic_algorithms(name == OURS)
        self._begun[name] = time.thread_time()

    def trained(self, name: str, steps: int) -> None:
        """Note that an epoch's batches are through."""
        self._step[name] = (time.thread_time() - self._begun[name]) / steps

    def _pass_on(self, name: str) -> None:
        with self._changed:
            if name in self._begun and self._order[self._at] == name:
                self._at = (self._at + 1) % len(self._order)
                self._changed.notify_all()

    def leave(self, name: str) -> None:
        """Take part no more."""
        with self._changed:
            following = self._order[(self._at + 1) % len(self._order)]
            mine = self._order[self._at] == name
            current = following if mine else self._order[self._at]
            self._order = [each for each in self._order if each != name]
            self._at = self._order.index(current) if current in self._order else 0
            self._changed.notify_all()


def callback(turns: Turns, name: str) -> Any:
    """Return a Lightning callback that takes turns by the epoch."""
    from pytorch_lightning import Callback, LightningModule, Trainer

    class Turn(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            turns.begin(name)

        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.state.fn == "fit" and not trainer.sanity_checking:
                turns.trained(name, int(trainer.num_training_batches))

    return Turn()


def measure(rounds: int) -> Times:
    """Train by the four ways in turn; return their times, the first round left out."""
    import torch

    import trainer
    from mlmodeldev.callbacks import stack
    from mlmodeldev.settings.composition import compose_settings

    torch.set_num_threads(1)
    turns = Turns([OURS, DEFAULTS, BARE, LOOP], rounds)
    make = stack.make_callbacks
    with tempfile.TemporaryDirectory() as folder:
        settings = compose_settings(
            [
                "logger=csv",
                f"training.max_epochs={rounds + 2}",
                "training.test=false",
                "callbacks.cka.enabled=false",
                f"artefacts.runs_dir={folder}/runs",
                f"artefacts.data_dir={folder}/data",
            ]
        )
        others = _other_ways(settings, turns, Path(folder))
        with mock.patch.object(
            stack, "make_callbacks", lambda *a: [others, callback(turns, OURS), *make(*a)]
        ):
            trainer.train(settings)
        turns.leave(OURS)
        others.join()
    return {name: times[1 : rounds + 1] for name, times in reversed(turns.seconds.items())}


def _other_ways(settings: Any, turns: Turns, folder: Path) -> Any:
    """Return a callback that starts the other ways, once our trainer has its data."""
    from pytorch_lightning import Callback, LightningModule, Trainer

    class Others(Callback):
        threads: tuple[threading.Thread, ...] = ()

        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            ways: dict[str, Callable[[], None]] = {
                LOOP: lambda: _loop(settings, trainer, turns),
                BARE: lambda: _lightning(settings, trainer, turns, BARE, folder),
                DEFAULTS: lambda: _lightning(settings, trainer, turns, DEFAULTS, folder),
            }
            self.threads = tuple(
                threading.Thread(target=_guarded, args=(way, turns, name), daemon=True)
                for name, way in ways.items()
            )
            for thread in self.threads:
                thread.start()

        def join(self) -> None:
            for thread in self.threads:
                thread.join(600)

    return Others()


def _guarded(way: Callable[[], None], turns: Turns, name: str) -> None:
    import torch

    torch.set_num_threads(1)  # of this thread
    try:
        way()
    finally:
        turns.leave(name)


def _loop(settings: Any, trainer: Any, turns: Turns) -> None:
    loop = PlainLoop(settings, trainer, _plain_loader(trainer))
    for _ in range(turns.rounds + 2):
        turns.begin(LOOP)
        steps = 0
        for batch in loop.loader:
            loop._step(batch)
            steps += 1
        turns.trained(LOOP, steps)


def _lightning(settings: Any, trainer: Any, turns: Turns, name: str, folder: Path) -> None:
    from pytorch_lightning import LightningDataModule, Trainer
    from pytorch_lightning.loggers import CSVLogger

    from mlmodeldev.training import build
    from mlmodeldev.training.optimizer import attach

    ours = trainer.datamodule

    class Data(LightningDataModule):
        prompts = ours.prompts

        def train_dataloader(self) -> Any:
            return _plain_loader(trainer)

        def val_dataloader(self) -> Any:
            return ours.val_dataloader()

    with _quiet():
        model = build.model(settings, ours)
        attach(model, settings.optimizer)
        is_bare = name == BARE
        options: dict[str, Any] = {
            "logger": False if is_bare else CSVLogger(folder / "csv"),
            "enable_checkpointing": not is_bare,
            "enable_progress_bar": not is_bare,
            "enable_model_summary": not is_bare,
        }
        Trainer(
            accelerator="cpu", devices=1, max_epochs=turns.rounds + 2,
            gradient_clip_val=settings.training.gradient_clip_val, num_sanity_val_steps=0,
            default_root_dir=folder / name.replace(" ", "-"), callbacks=[callback(turns, name)],
            **options,
        ).fit(model, datamodule=Data())  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        result = run()
    print(result.text())
