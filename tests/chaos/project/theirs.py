"""Plain Lightning code as other people write it: nothing in it is made for the library."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pace
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split


class TheirData(LightningDataModule):
    """Shuffles, splits and distorts by whatever generator is at hand."""

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str | None = None) -> None:
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(64, 8, generator=generator)
        self.train, self.val = random_split(TensorDataset(x, x.sum(1, keepdim=True)), [48, 16])

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=self.hparams["batch_size"], shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=self.hparams["batch_size"])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return x * (1 + 0.05 * torch.rand(1)), y


class TheirModel(LightningModule):
    """Manual optimization with a schedule, and noise from Python's and numpy's generators."""

    def __init__(self, width: int = 5, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Dropout(0.1))
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.net(x))
        return y

    def on_fit_start(self) -> None:
        pace.note("begin", self.trainer)

    def on_fit_end(self) -> None:
        pace.note("end", self.trainer)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        pace.step()
        optimizer: Any = self.optimizers()
        x = batch[0] + random.gauss(0, 0.05) + float(np.random.normal(0, 0.05))
        loss = F.mse_loss(self(x), batch[1])
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("train_loss", loss)

    def on_train_epoch_end(self) -> None:
        schedule: Any = self.lr_schedulers()
        schedule.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.mse_loss(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)]
