"""For which epoch the loaders were made belongs to the checkpoint.

With ``reload_dataloaders_every_n_epochs=2`` the loaders of epoch 0 serve epoch 1 too. Lightning's
checkpoints don't say so: a trial that resumes makes them for the epoch in which it does, and again
two epochs after that. Here they are made, and made anew, for the epochs of an undisturbed trial.

Example::

    Trainer(callbacks=[LoaderEpochs()], reload_dataloaders_every_n_epochs=2, ...)
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

_NOTES = {"train": "_last_train_dl_reload_epoch", "val": "_last_val_dl_reload_epoch"}
"""Where Lightning's loops note the epoch; minus infinity before there is a loader."""


class LoaderEpochs(Callback):
    """Show the hooks that make loaders the epoch for which they were made before."""

    def __init__(self) -> None:
        self._saved: dict[str, int] = {}
        self._trainer: Trainer | None = None

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "LoaderEpochs"

    def state_dict(self) -> dict[str, int]:
        if self._trainer is None:
            return {}
        noted = {
            stage: getattr(_loop(self._trainer, stage), note) for stage, note in _NOTES.items()
        }
        return {stage: int(epoch) for stage, epoch in noted.items() if math.isfinite(epoch)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._saved = state_dict

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for stage in self._saved:
            self._wrap(trainer, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "train" in self._saved:  # Lightning has noted the epoch in which it resumes
            setattr(trainer.fit_loop, _NOTES["train"], self._saved.pop("train"))

    def _wrap(self, trainer: Trainer, stage: str) -> None:
        """Let the first call of a hook that makes loaders see the epoch of before."""
        loop = _loop(trainer, stage)
        source = loop._data_source
        if not source.is_module() or not source.is_defined():
            return
        owner, make = vars(source.instance), getattr(source.instance, source.name)
        former = owner.get(source.name)

        @functools.wraps(make)
        def make_first() -> Any:
            owner.pop(source.name)
            if former is not None:
                owner[source.name] = former
            epoch = self._saved[stage] = _epoch_of_loaders(trainer, self._saved[stage])
            setattr(loop, _NOTES[stage], epoch)
            with _shown(trainer, epoch):
                return make()

        owner[source.name] = make_first


def _loop(trainer: Trainer, stage: str) -> Any:
    return trainer.fit_loop if stage == "train" else trainer.fit_loop.epoch_loop.val_loop


def _epoch_of_loaders(trainer: Trainer, former: int) -> int:
    """Return the epoch to come if the loaders are due to be made anew for it, else the former."""
    of_trainer: Any = trainer
    every, epochs = of_trainer.reload_dataloaders_every_n_epochs, of_trainer.fit_loop.epoch_progress
    coming: int = max(epochs.current.processed, epochs.current.completed)
    return coming if every and coming - former >= every else former


@contextlib.contextmanager
def _shown(trainer: Trainer, epoch: int) -> Iterator[None]:
    """Let ``trainer.current_epoch`` be another for the moment."""
    progress = trainer.fit_loop.epoch_progress.current
    own, progress.completed = progress.completed, epoch
    try:
        yield
    finally:
        progress.completed = own
