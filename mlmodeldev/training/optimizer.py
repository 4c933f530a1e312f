"""Optimizer and learning-rate schedule from the `optimizer` group.

A LightningModule that writes its own ``configure_optimizers`` keeps it; any other gets this one,
so that models hold structure only.

Example::

    attach(model, settings.optimizer)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import nn

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Optimizer


def attach(model: LightningModule, settings: Optimizer) -> None:
    """Give the model its optimizer and schedule, unless it defines them itself."""
    if is_overridden("configure_optimizers", model, parent=LightningModule):
        return

    def configure_optimizers() -> dict[str, Any] | None:
        if not any(p.requires_grad for p in model.parameters()):
            return None
        # In mixed precision Lightning does not clip what a fused optimizer may unscale by itself.
        fused = not str(model.trainer.precision).endswith("-mixed")
        optimizer = make_optimizer(model, settings, fused)
        steps = int(model.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(settings, steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    model.configure_optimizers = configure_optimizers  # type: ignore[method-assign,assignment]


def make_optimizer(
    model: nn.Module, settings: Optimizer, fused: bool = True
) -> torch.optim.Optimizer:
    """Return the optimizer over all parameters that need a gradient.

    Only tensors of two or more dimensions are decayed: decay is meant for weight matrices, and
    harms biases, norms and scales.

    Args:
        model: what it trains.
        settings: its kind, rate and so on.
        fused: one kernel for all tensors, where their types allow it; for many small ones three
            times quicker, on a CPU too.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = fused and all(p.is_floating_point() for p in trainable)
    if settings.name == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(groups, lr=settings.lr, momentum=momentum, fused=fused)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    first, second = settings.betas
    return kind(groups, lr=settings.lr, betas=(first, second), fused=fused)


def schedule(settings: Optimizer, steps: int) -> Callable[[int], float]:
    """Return the factor of the peak rate at each optimizer step, 0 to ``steps``.

    The rate climbs linearly over ``warmup_fraction * steps`` steps, then stays, or falls to
    ``min_lr_fraction`` along a line or half a cosine (Loshchilov & Hutter 2017, eq. 5).
    """
    warmup = math.ceil(settings.warmup_fraction * steps)
    floor = settings.min_lr_fraction

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if settings.schedule == "constant":
            return 1.0
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        shape = 1 - done if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return floor + (1 - floor) * shape

    return factor
