"""Plain models and data whose training depends on more than weights and optimizers."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from tests.training.plain_classes import points


class Both(LightningDataModule):
    """Five batches to train on, and the same to validate on."""

    def train_dataloader(self) -> Any:
        return DataLoader(points(80), batch_size=16, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(points(80), batch_size=16)


class Linear(LightningModule):
    """One layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(8, 3)

    def loss(self, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)
