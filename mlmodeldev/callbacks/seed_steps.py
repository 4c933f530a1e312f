"""Seed each step by its number, so that dropout, and whatever a step draws, is a function of it.

Example::

    Trainer(callbacks=[SeedSteps(seed=0)], ...)
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.data.loader import key
from mlmodeldev.data.randomness import seed_all


class SeedSteps(Callback):
    """Seed all global generators before each batch from (seed, rank, epoch, batch).

    Before the hooks of an epoch and of a stage they are seeded too: a resumed trial comes there
    with other numbers behind it than an undisturbed one.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _seed(self, purpose: str, *path: int) -> None:
        seed_all(key(self.seed, purpose, *path))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._seed("step", trainer.global_rank, trainer.current_epoch, batch_idx)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        loader = (dataloader_idx,) if dataloader_idx else ()
        self._seed("validation", trainer.global_rank, batch_idx, *loader)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._seed("test", trainer.global_rank, batch_idx, dataloader_idx)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seed("fit", trainer.global_rank)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seed("train", trainer.global_rank)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seed("epoch", trainer.global_rank, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seed("epoch end", trainer.global_rank, trainer.current_epoch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seed("validation start", trainer.global_rank, trainer.current_epoch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seed("validation end", trainer.global_rank, trainer.current_epoch)
