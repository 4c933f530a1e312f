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

_MOST_LOSSES = 64
"""Losses kept until an optimizer steps; more become one."""
_UNSEEN = "the optimizer is stepped without Lightning: use self.optimizers() in training_step"


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite and ``training.nonfinite=raise``."""


class NonFinite(Callback):
    """Watch the loss of every batch; no weight is ever changed by a non-finite one.

    Where a module optimizes by hand, losses and steps may come in any order: there the gradients
    of each optimizer are looked at too. Steps of an optimizer that Lightning does not see can't be
    left out; that is said once, and ``raise`` raises all the same.

    Args:
        policy: ``raise`` fails the trial; ``stop`` ends it with the weights that are good;
            ``skip`` leaves the optimizer step out (all of an accumulation window) and goes on.
    """

    def __init__(self, policy: Literal["raise", "stop", "skip"]) -> None:
        self.policy = policy
        self.skipped = 0
        self.stopped_at: int | None = None
        self._losses: list[Tensor] = []
        self._warned = False

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
        self._losses.append(loss.detach().sum())
        if len(self._losses) >= _MOST_LOSSES:
            self._fold(trainer, pl_module)

    def _fold(self, trainer: Trainer, module: LightningModule) -> None:
        """Make one of many losses: a sum is finite only if all are."""
        self._losses = [torch.stack(self._losses).double().sum()]
        if module.automatic_optimization or _all_finite(self._losses):
            return
        self._losses.clear()
        where = f"the loss is not finite by step {trainer.global_step}"
        if self.policy == "raise":
            raise NonFiniteLoss(f"{where}, and {_UNSEEN}")
        if not self._warned:
            self._warned = True
            log.warning("%s: training.nonfinite=%s can't act, as %s", where, self.policy, _UNSEEN)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        bad = not _all_finite(self._losses)
        self._losses.clear()
        if not pl_module.automatic_optimization:
            bad = bad or not _finite_gradients(optimizer)
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


def _finite_gradients(optimizer: torch.optim.Optimizer) -> bool:
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    return all(bool(gradient.isfinite().all()) for gradient in gradients)
