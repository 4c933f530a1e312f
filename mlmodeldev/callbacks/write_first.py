"""Write a recovery checkpoint before any other callback acts in the hook that it is written in.

Whoever goes on from it comes to that hook again: what `BackboneFinetuning` does at an epoch's
start, or an average at training's end, must not be in it already.

Example::

    recovery = ResumeCheckpoint(folder, monitor="val/accuracy", mode="max")
    Trainer(callbacks=[WriteFirst(recovery), ..., recovery], ...)
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.callbacks.resume import ResumeCheckpoint


class WriteFirst(Callback):
    """Write what was taken; Lightning calls `ResumeCheckpoint` itself after all others.

    Args:
        recovery: takes the checkpoints, and ends the training after the last.
    """

    def __init__(self, recovery: ResumeCheckpoint) -> None:
        self.recovery = recovery

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.recovery.write(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.recovery.write(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.recovery.write(trainer)
        if trainer.world_size == 1:
            self.recovery.note_weights(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.recovery.write(trainer)
