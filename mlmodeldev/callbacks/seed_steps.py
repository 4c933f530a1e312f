"""Seed each step by its number, so that dropout is a function of the step.

Example::

    Trainer(callbacks=[SeedSteps(seed=0)], ...)
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.data.loader import key


class SeedSteps(Callback):
    """Seed torch before each training and validation batch from (seed, rank, epoch, batch)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        where = (trainer.global_rank, trainer.current_epoch, batch_idx)
        _seed(key(self.seed, "step", *where))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        _seed(key(self.seed, "validation", trainer.global_rank, batch_idx))


def _seed(number: int) -> None:
    """Seed torch's generators of the devices in use.

    `torch.manual_seed` formats the stack for each kind of device that is not in use, to seed it
    later: a hundred times slower on a CPU, as deep as a callback is called.
    """
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(number)
