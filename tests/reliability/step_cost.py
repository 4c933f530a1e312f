"""What the watch costs a step: the two hooks of `Beats`, as Lightning calls them.

``python -m tests.reliability.step_cost`` prints microseconds of CPU time a training step, the least
of many blocks, with no callback, an empty one and `Beats` in turn.
"""

from __future__ import annotations

import logging
import time

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.call import _call_callback_hooks

from mlmodeldev.callbacks.beats import Beats
from mlmodeldev.callbacks.stack import _drop_idle_hooks

_BLOCKS, _STEPS = 60, 500


class _Empty(Callback):
    """What any callback costs that has the two hooks."""

    def on_train_batch_start(self, *given: object) -> None:
        pass

    def on_train_batch_end(self, *given: object) -> None:
        pass


def microseconds_a_step() -> tuple[float, float]:
    """Return how much CPU time an empty callback, and `Beats`, add to a step."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    trainers = [_trainer([]), _trainer([_Empty()]), _trainer([Beats()])]
    least = [float("inf")] * len(trainers)
    for _ in range(_BLOCKS):
        for which, trainer in enumerate(trainers):
            least[which] = min(least[which], _block(trainer))
    nothing, empty, beats = (1e6 * seconds / _STEPS for seconds in least)
    return empty - nothing, beats - nothing


def _trainer(callbacks: list[Callback]) -> Trainer:
    for callback in callbacks:
        _drop_idle_hooks(callback)
    trainer = Trainer(
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(LightningModule())
    return trainer


def _block(trainer: Trainer) -> float:
    batch = torch.zeros(1)
    begun = time.process_time()
    for number in range(_STEPS):
        _call_callback_hooks(trainer, "on_train_batch_start", batch, number)
        _call_callback_hooks(trainer, "on_train_batch_end", None, batch, number)
    return time.process_time() - begun


if __name__ == "__main__":
    empty, beats = microseconds_a_step()
    print(f"{beats:.2f} microseconds a step; an empty callback {empty:.2f}")
