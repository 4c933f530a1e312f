"""Averages of weights (EMA, SWA) that take the place of a model's own for a validation.

Example::

    trained = norms_of(model)               # before a validation
    if put_back(trainer, trained): ...      # in it: the model has the weights of training
"""

from __future__ import annotations

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from mlmodeldev.callbacks.soundness import averages_of, local_values


def use_averages(trainer: Trainer, module: LightningModule) -> None:
    """Give a model the average, as Lightning does at training's end.

    Where a resumed trial has nothing left to train, Lightning calls no hook.
    """
    for average in averages_of(trainer):
        if average._average_model is not None:
            average._copy_average_to_current(module)


def norms_of(module: LightningModule) -> list[Tensor]:
    """Return the norm of each parameter; on its device, nobody waits for it."""
    values = [local for each in module.parameters() for local in local_values(each)]
    with torch.no_grad():
        return list(torch._foreach_norm(values)) if values else []


def put_back(trainer: Trainer, trained: list[Tensor]) -> bool:
    """Put the weights of training back where Lightning's average has taken their place.

    Returns:
        Whether the model has the weights of these norms now. A callback of somebody else's may
        have replaced them: all is left as it is then.
    """
    module = trainer.lightning_module
    if _has(module, trained):
        return True
    swapped = [each for each in averages_of(trainer) if each._average_model is not None]
    for average in swapped:
        average._swap_models(module)
    if _has(module, trained):
        return True
    for average in reversed(swapped):
        average._swap_models(module)
    return False


def _has(module: LightningModule, norms: list[Tensor]) -> bool:
    now = norms_of(module)
    return len(now) == len(norms) and all(map(torch.equal, now, norms))
