"""Seed each step by its number, so that dropout is a function of the step.

Example::

    Trainer(callbacks=[SeedSteps(seed=0)], ...)
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.data.seeding import key


class SeedSteps(Callback):
    """Seed torch before each training and validation batch from (seed, rank, epoch, batch)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(
            key(self.seed, "step", trainer.global_rank, trainer.current_epoch, batch_idx)
        )

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        torch.manual_seed(key(self.seed, "validation", trainer.global_rank, batch_idx))
