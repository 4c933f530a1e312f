"""What to do when a loss, a gradient or a weight is NaN or infinite: raise, stop or skip.

Example::

    Trainer(callbacks=[NonFinite("skip")], ...)
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from mlmodeldev.callbacks.soundness import (
    NonFiniteWeights,
    describe,
    go_back,
    gradient_norm,
    not_numbers,
    unsound,
    widest,
)

log = logging.getLogger(__name__)

_MOST_LOSSES = 64
"""Losses kept until an optimizer steps; more become one."""
_UNSEEN = "the optimizer is stepped without Lightning: use self.optimizers() in training_step"
_REMEDY = "lower optimizer.lr, set training.gradient_clip_val, or choose"


class NonFiniteLoss(RuntimeError):
    """A loss or gradient became NaN or infinite, and no step could or should be taken."""


class NonFinite(Callback):
    """Watch the loss and the gradients of every step; no weight is changed by a non-finite one.

    Where half precision scales the loss, an infinite gradient is first the scaler's affair: it
    leaves the step out and takes a smaller scale. It becomes ours when the scale is no more than 1.
    Steps of an optimizer that Lightning does not see can't be left out; that is said once, and
    ``raise`` raises all the same.

    Args:
        policy: ``raise`` fails the trial; ``stop`` ends it with the weights that are good;
            ``skip`` leaves the optimizer step out (all of an accumulation window) and goes on.
        checkpoints: where ``stop`` finds good weights if the present ones are not finite.

    Attributes:
        skipped: steps left out by this policy.
        by_scaler: steps that the scaler has left out.
        taken: all other steps.
        usual: parts of the model's state that are meant not to be finite, such as masks.
    """

    def __init__(
        self, policy: Literal["raise", "stop", "skip"], checkpoints: Path | None = None
    ) -> None:
        self.policy, self.checkpoints = policy, checkpoints
        self.skipped = self.by_scaler = self.taken = 0
        self.stopped_at: int | None = None
        self.usual: set[str] = set()
        self.begins_anew = False
        """Whether the checkpoint that is loaded is another trial's: its steps don't count."""
        self._losses: list[Tensor] = []
        self._statistics: list[Tensor] = []
        self._kept: list[Tensor] = []
        self._warned = False

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "NonFinite"

    def state_dict(self) -> dict[str, Any]:
        counts = {"skipped": self.skipped, "by_scaler": self.by_scaler, "taken": self.taken}
        return {**counts, "stopped_at": self.stopped_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.begins_anew:
            return
        self.skipped = state_dict["skipped"]
        self.by_scaler = state_dict.get("by_scaler", 0)
        self.taken = state_dict.get("taken", 1)  # an older version's: nobody counted
        self.stopped_at = state_dict.get("stopped_at")

    @property
    def left_out(self) -> dict[str, int]:
        """What the trial's record tells of steps that were left out; nothing where none was."""
        counts = {"skip": self.skipped, "scaler": self.by_scaler}
        return {name: count for name, count in counts.items() if count}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what is not finite by intention, and keep the statistics that a batch may spoil.

        Raises:
            NonFiniteWeights: a weight that is to be trained is not finite.
        """
        self.usual = not_numbers(pl_module)
        trained = {name for name, p in pl_module.named_parameters() if p.requires_grad}
        if wrong := sorted(self.usual & trained):
            origin = f" in {trainer.ckpt_path}" if trainer.ckpt_path else ", before the first step"
            raise NonFiniteWeights(f"{describe(wrong)}{origin}")
        if self.policy != "raise":
            layers = (m for m in pl_module.modules() if isinstance(m, _NormBase))
            statistics = (each for m in layers for each in (m.running_mean, m.running_var))
            self._statistics = [each for each in statistics if each is not None]
            self._kept = [each.clone() for each in self._statistics]

    def check_taken(self) -> None:
        """Refuse a training of which no step was taken.

        Raises:
            NonFiniteLoss: it is one.
        """
        left_out = self.skipped + self.by_scaler
        if (left_out or self.stopped_at is not None) and not self.taken:
            raise NonFiniteLoss(
                f"no step was taken ({left_out} were left out): no loss and gradient was finite, so"
                " nothing was learned"
            )

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        self._losses.append(loss.detach().sum())
        if len(self._losses) >= _MOST_LOSSES:
            self._fold(trainer, pl_module)

    def _fold(self, trainer: Trainer, module: LightningModule) -> None:
        """Make one of many losses: a sum is finite only if all are."""
        losses = torch.stack(self._losses)
        self._losses = [losses.to(widest(losses.device)).sum()]
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
        losses, self._losses = self._losses, []
        norm = gradient_norm(optimizer)
        if not _anywhere(trainer, not _all_finite(losses if norm is None else [*losses, norm])):
            self.taken += 1
            if self._kept:
                torch._foreach_copy_(self._kept, self._statistics)
            return
        what = "loss" if _anywhere(trainer, not _all_finite(losses)) else "gradient"
        if what == "gradient" and _scale(trainer) > 1:
            self.by_scaler += 1
            return
        self._act(trainer, pl_module, optimizer, what)

    def _act(
        self,
        trainer: Trainer,
        module: LightningModule,
        optimizer: torch.optim.Optimizer,
        what: str,
    ) -> None:
        where = f"the {what} is not finite at step {trainer.global_step}"
        if self.policy == "raise":
            raise NonFiniteLoss(f"{where}: {_REMEDY} training.nonfinite=skip or stop")
        if self._kept:
            torch._foreach_copy_(self._statistics, self._kept)
        names = unsound(module, self.usual)
        if _anywhere(trainer, bool(names)):
            names = names or ["of another process"]
            self.lose_weights(trainer, NonFiniteWeights(f"{where}: {describe(names)}"))
        # A parameter without a gradient is left as it is, and so are its averages.
        optimizer.zero_grad(set_to_none=True)
        if self.policy == "stop":
            self._stop(trainer, where)
        else:
            self.skipped += 1
            log.warning("%s: step left out (%d so far)", where, self.skipped)

    def lose_weights(self, trainer: Trainer, error: NonFiniteWeights) -> None:
        """Go back to the newest checkpoint's weights and stop, where the policy is to stop.

        Raises:
            NonFiniteWeights: ``error``; the policy is another, or there is no checkpoint.
        """
        path = None
        if self.policy == "stop" and self.checkpoints is not None:
            path = go_back(trainer, self.checkpoints)
        if path is None:
            raise error
        self._stop(trainer, f"{error}: going back to {path.name}")

    def _stop(self, trainer: Trainer, where: str) -> None:
        trainer.should_stop = True
        if self.stopped_at is None:
            log.warning("%s: stopping with the best weights so far", where)
        self.stopped_at = trainer.global_step


def _anywhere(trainer: Trainer, bad: bool) -> bool:
    """Whether something is wrong on any process; all must call this."""
    if trainer.world_size == 1:
        return bad
    return trainer.strategy.reduce_boolean_decision(bad, all=False)


def _scale(trainer: Trainer) -> float:
    """Return what half precision multiplies the loss by; 1 where nothing does."""
    scaler: Any = getattr(trainer.precision_plugin, "scaler", None)
    return 1.0 if scaler is None else float(scaler.get_scale())


def _all_finite(values: list[Tensor]) -> bool:
    """Whether all losses of an optimizer step are numbers; waits for the device once."""
    if len(values) == 1:
        return math.isfinite(values[0].item())
    device = values[0].device if values else None
    return not values or bool(torch.stack([v.isfinite().to(device) for v in values]).all())
