"""Models and data as people write them for Lightning, with all that a resume must not lose."""

from __future__ import annotations

import random
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, random_split
from torchmetrics import MaxMetric, MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score


def points(count: int = 120) -> TensorDataset:
    """Return points of 8 numbers in 3 classes."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(count, 8, generator=generator)
    return TensorDataset(x, (x @ torch.randn(8, 3, generator=generator)).argmax(1))


class Jittered(Dataset[Any]):
    """Augments by whatever generator is at hand."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        x, y = self.data[index]
        noise = random.gauss(0, 0.1) + np.random.normal(0, 0.1)
        return x + noise + 0.1 * torch.randn(8), y


class Plain(LightningDataModule):
    """Its own loaders, its own random split without a seed, two validation loaders, a test."""

    def __init__(
        self, batch_size: int = 16, workers: int = 0, loaders: int = 2, drop_last: bool = False
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.loaders, self.workers = loaders, workers

    def setup(self, stage: str | None = None) -> None:
        self.train, self.val, self.test = random_split(points(), [80, 24, 16])

    def train_dataloader(self) -> Any:
        size = self.hparams["batch_size"]
        return DataLoader(
            Jittered(self.train),
            batch_size=size,
            shuffle=True,
            num_workers=self.workers,
            drop_last=self.hparams["drop_last"],
        )

    def val_dataloader(self) -> Any:
        made = [DataLoader(Jittered(self.val), batch_size=8) for _ in range(self.loaders)]
        return made if self.loaders > 1 else made[0]

    def test_dataloader(self) -> Any:
        return DataLoader(self.test, batch_size=8)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return x * (1 + 0.01 * torch.rand(1)), y


class Stream(LightningDataModule):
    """An IterableDataset that shuffles by Python's generator; no validation."""

    class Numbers(IterableDataset[Any]):
        def __iter__(self) -> Any:
            data = points(64)
            order = list(range(64))
            random.shuffle(order)
            yield from (data[i] for i in order)

    def train_dataloader(self) -> Any:
        return DataLoader(self.Numbers(), batch_size=8)


class Two(Plain):
    """Two training loaders of different lengths."""

    def train_dataloader(self) -> Any:
        short = torch.utils.data.Subset(self.train, range(24))
        return {
            "a": super().train_dataloader(),
            "b": DataLoader(short, batch_size=8, shuffle=True),
        }

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, dict):
            return {n: Plain.on_after_batch_transfer(self, b, 0) for n, b in batch.items()}
        return super().on_after_batch_transfer(batch, dataloader_idx)


class Half(Two):
    """A few examples with labels, again and again beside a stream whose length nobody tells."""

    def train_dataloader(self) -> Any:
        return {
            "a": super().train_dataloader()["b"],
            "b": DataLoader(Stream.Numbers(), batch_size=8),
        }


class Everything(LightningModule):
    """Metrics of all kinds, a scheduler that waits, random steps, hyper-parameters of any type."""

    def __init__(self, hidden: int = 6, lr: float = 0.05, act: Any = nn.ReLU) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.place = Path(__file__)
        self.save_hyperparameters({"module": nn.Linear(2, 2), "where": self.place})
        self.save_hyperparameters({"call": F.relu, "part": partial(nn.Linear, 2), "when": date.min})
        self.net = nn.Sequential(nn.Linear(8, hidden), act(), nn.Dropout(0.2), nn.Linear(hidden, 3))
        self.train_accuracy = MulticlassAccuracy(3)
        self.both = MetricCollection([MulticlassAccuracy(3), MulticlassF1Score(3)], prefix="val_")
        self.best, self.seen = MaxMetric(), MeanMetric()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = {"numpy": np.float32(1.5), "array": np.arange(3), "path": self.place}
        checkpoint["times"] = [datetime(2020, 1, 2, 3), np.int64(7), np.bool_(True)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert checkpoint["mine"]["path"] == self.place
        assert checkpoint["times"] == [datetime(2020, 1, 2, 3), 7, True]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        if random.random() < 0.3:
            x = x + np.random.normal(0, 0.1)
        out = self(x)
        loss = F.cross_entropy(out, y)
        self.train_accuracy(out, y)
        self.seen.update(loss)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("train_acc", self.train_accuracy, on_step=False, on_epoch=True)
        self.log("largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("mean_so_far", self.seen.compute())

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        out = self(x)
        self.log("val_loss", F.cross_entropy(out, y), add_dataloader_idx=False) if (
            dataloader_idx == 0
        ) else None
        self.both.update(out, y)

    def on_validation_epoch_end(self) -> None:
        values = self.both.compute()
        self.log_dict(values)
        self.both.reset()
        if not self.trainer.sanity_checking:
            self.best(values["val_MulticlassAccuracy"])
            self.log("val_best", self.best.compute())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])
        waits = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": waits,
                "monitor": "val_loss",
                "frequency": self.trainer.check_val_every_n_epoch,
            },
        }


class Untested(Everything):
    """Has no ``test_step``, on data that have a test loader."""

    test_step = LightningModule.test_step


class OfTwo(Everything):
    """Takes a batch of two loaders."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch["a"], batch_idx) + F.mse_loss(
            self(batch["b"][0]), torch.zeros(len(batch["b"][0]), 3)
        )


class OfStream(LightningModule):
    """No validation, a scheduler of its own, a step that leaves batches out."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(8, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        if batch_idx == 3:
            return None
        loss = F.cross_entropy(self.net(F.dropout(batch[0], 0.2)), batch[1])
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)]


class Alone(OfStream):
    """Brings its own loaders, as old examples do."""

    def train_dataloader(self) -> Any:
        return DataLoader(Jittered(points(40)), batch_size=8, shuffle=True)


class Game(LightningModule):
    """A generator and a judge: manual optimization, one scheduler, no validation."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.maker, self.judge = nn.Linear(4, 8), nn.Linear(8, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()  # type: ignore[attr-defined, misc]
        made = self.maker(torch.randn(len(batch[0]), 4))
        loss = -self.judge(made).mean()
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        other = self.judge(made.detach()).mean() - self.judge(batch[0]).mean()
        other = other + self.judge.weight.square().sum()
        second.zero_grad()
        self.manual_backward(other)
        second.step()
        self.log_dict({"g_loss": loss, "d_loss": other}, on_epoch=True)

    def configure_optimizers(self) -> Any:
        makers = torch.optim.Adam(self.maker.parameters(), lr=0.01)
        return makers, torch.optim.Adam(self.judge.parameters(), lr=0.01)


class Sentences(LightningDataModule):
    """Sequences of different lengths, which come together by a function of the user's; no more."""

    def train_dataloader(self) -> Any:
        rows = [torch.arange(1.0, 2 + n % 5) for n in range(30)]
        return DataLoader(rows, batch_size=4, shuffle=True, collate_fn=list)


class OfSentences(LightningModule):
    """Takes a batch of tensors of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = torch.stack([self.net(row[:, None]).square().mean() for row in batch]).mean()
        self.log("loss", loss, batch_size=len(batch))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Counts(LightningModule):
    """Learns by no gradient: no optimizer, and its steps return nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("total", torch.zeros(8))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.seen += len(batch[0])
        self.total += batch[0].sum(0)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if dataloader_idx == 0:
            self.log("val_mean", (self.total / self.seen).mean(), add_dataloader_idx=False)

    def configure_optimizers(self) -> None:
        return None
