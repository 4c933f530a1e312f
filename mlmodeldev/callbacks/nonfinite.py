"""What to do when the loss is NaN or infinite: raise, stop or skip.

Example::

    Trainer(callbacks=[NonFinite("skip")], ...)
"""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

log = logging.getLogger(__name__)


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite and ``training.nonfinite=raise``."""


class NonFinite(Callback):
    """Watch the loss of every batch; no weight is ever changed by a non-finite one.

    Args:
        policy: ``raise`` fails the trial; ``stop`` ends it with the weights that are good;
            ``skip`` leaves the optimizer step out (all of an accumulation window) and goes on.
    """

    def __init__(self, policy: Literal["raise", "stop", "skip"]) -> None:
        self.policy = policy
        self.skipped = 0
        self.stopped_at: int | None = None
        self._losses: list[Tensor] = []

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "NonFinite"

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict["skipped"]

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        bad = not _all_finite(self._losses)
        self._losses.clear()
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        if not bad:
            return
        where = f"the loss is not finite at step {trainer.global_step}"
        if self.policy == "raise":
            raise NonFiniteLoss(
                f"{where}: lower optimizer.lr, set training.gradient_clip_val, or choose"
                " training.nonfinite=skip or stop"
            )
        # A parameter without a gradient is left as it is, and so are its averages.
        optimizer.zero_grad(set_to_none=True)
        if self.policy == "stop":
            self.stopped_at = trainer.global_step
            trainer.should_stop = True
            log.warning("%s: stopping with the best weights so far", where)
        else:
            self.skipped += 1
            log.warning("%s: step left out (%d so far)", where, self.skipped)


def _all_finite(losses: list[Tensor]) -> bool:
    """Whether all losses of an optimizer step are numbers; waits for the device once."""
    if len(losses) == 1:
        return math.isfinite(losses[0].item())
    return not losses or bool(torch.stack(losses).isfinite().all())
