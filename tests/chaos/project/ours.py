"""A model and data made for the library: seeds, order and augmentation are the loader's."""

from __future__ import annotations

from typing import Any

import pace
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from mlmodeldev.data.loader import generator
from mlmodeldev.data.module import ExactDataModule


class Noisy:
    """Points, each with noise drawn anew in each epoch, from seed, epoch and index only."""

    def __init__(self, x: Tensor, y: Tensor, seed: int) -> None:
        self.x, self.y, self.seed = x, y, seed

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, item: Any) -> tuple[Tensor, Tensor]:
        noise = generator(self.seed, "noise", item.epoch, item.index).normal(0, 0.1, 8)
        return self.x[item.index] + torch.from_numpy(noise).float(), self.y[item.index]


class Points(ExactDataModule):
    """48 points of 8 numbers in 3 classes to train on, 16 to validate on."""

    in_memory = True
    info = {"classes": 3, "labels": ["a", "b", "c"]}  # noqa: RUF012 - as users write it

    def setup(self, stage: str | None = None) -> None:
        fixed = torch.Generator().manual_seed(7)
        x = torch.randn(64, 8, generator=fixed)
        y = (x @ torch.randn(8, 3, generator=fixed)).argmax(1)
        self.train_set = Noisy(x[:48], y[:48], self.seed)
        self.val_set = Noisy(x[48:], y[48:], self.seed)


class Net(LightningModule):
    """Two layers with dropout and the running means of a normalisation."""

    def __init__(self, classes: int, hidden: int = 6) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def on_fit_start(self) -> None:
        pace.note("begin", self.trainer)

    def on_fit_end(self) -> None:
        pace.note("end", self.trainer)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pace.step()
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))
