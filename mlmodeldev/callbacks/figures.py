"""What there is to show of any module's training: its loss, its rate, and what it logs.

Example::

    figures(trainer, first="val_loss")      # {"val_loss": 0.31, "train_loss": 0.4}

A step may return nothing, optimize by hand, or have no optimizer at all: each is then left out.
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor

_OURS = ("time/", "cka/")
"""Much and of each batch or layer: in the metrics, but not on a line."""


def loss_of(outputs: Any) -> Tensor | None:
    """Return the loss, a single number, of what a training step returned; None without one."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return loss.detach() if isinstance(loss, Tensor) and loss.numel() == 1 else None


def rate_of(trainer: Trainer) -> float | None:
    """Return the first optimizer's learning rate; None where there is no such thing."""
    groups = [group for each in trainer.optimizers for group in each.param_groups]
    rate = groups[0].get("lr") if groups else None
    return None if rate is None else float(rate)


def figures(trainer: Trainer, first: str | None = None) -> dict[str, float]:
    """Return the newest value of all that the module has logged, the one named first in front."""
    metrics = trainer.callback_metrics
    names = sorted(metrics, key=lambda name: (name != first, name))
    return {
        name: float(metrics[name])
        for name in names
        if name == first or not (name.startswith(_OURS) or _is_part_of(name, metrics))
    }


def _is_part_of(name: str, metrics: Any) -> bool:
    """Whether it is one of two that Lightning makes of a value logged on step and on epoch."""
    return any(
        name.endswith(end) and name.removesuffix(end) in metrics for end in ("_step", "_epoch")
    )
