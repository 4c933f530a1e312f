"""Models whose callbacks act between two steps, where a recovery checkpoint is written."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import BackboneFinetuning, EMAWeightAveraging
from torch import Tensor, nn

from tests.training.plain_classes import Everything


class Halves(Callback):
    """Halves the learning rate at each epoch's start; counts batches at theirs."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= 0.5

    def on_train_batch_start(self, *_: Any) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        pl_module.log("batches", float(self.count))


class Halving(Everything):
    """Has that callback."""

    def configure_callbacks(self) -> list[Callback]:
        return [Halves()]


class Unfrozen(Everything):
    """Its backbone learns from the third epoch on, by Lightning's own callback."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = self.net[0], self.net[3]

    def configure_callbacks(self) -> list[Callback]:
        return [BackboneFinetuning(unfreeze_backbone_at_epoch=2, backbone_initial_lr=0.01)]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


class Averaged(Everything):
    """Lightning's average is validated in the place of the weights."""

    def configure_callbacks(self) -> list[Callback]:
        return [EMAWeightAveraging(decay=0.8)]


class OwnAverage(Callback):
    """The same as others write it: copies to and fro, by ``data``."""

    def __init__(self) -> None:
        self.average: list[Tensor] = []
        self.own: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average = state_dict["average"]

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, *_: Any) -> None:
        now = [each.detach() for each in pl_module.parameters()]
        before = self.average or now
        self.average = [0.8 * old + 0.2 * new for old, new in zip(before, now, strict=True)]

    def on_validation_start(self, trainer: Any, pl_module: nn.Module) -> None:
        self.own = [each.detach().clone() for each in pl_module.parameters()]
        self._take(pl_module, self.average)

    def on_validation_end(self, trainer: Any, pl_module: nn.Module) -> None:
        self._take(pl_module, self.own)

    @staticmethod
    def _take(module: nn.Module, values: list[Tensor]) -> None:
        for each, value in zip(module.parameters(), values, strict=True):
            each.data.copy_(value)


class AveragedByOthers(Everything):
    """Has that callback."""

    def configure_callbacks(self) -> list[Callback]:
        return [OwnAverage()]
