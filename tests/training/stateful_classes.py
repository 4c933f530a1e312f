"""Plain models and data whose training depends on more than weights and optimizers."""

from __future__ import annotations

import multiprocessing
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import MetricTracker, MinMaxMetric
from torchmetrics.aggregation import RunningMean
from torchmetrics.classification import MulticlassAccuracy

from tests.training.plain_classes import points


class Both(LightningDataModule):
    """Five batches to train on, and the same to validate on."""

    def train_dataloader(self) -> Any:
        return DataLoader(points(80), batch_size=16, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(points(80), batch_size=16)


class ToTrain(LightningDataModule):
    """Five batches, no validation."""

    def train_dataloader(self) -> Any:
        return DataLoader(points(80), batch_size=16, shuffle=True)


class KeepsWorkers(LightningDataModule):
    """A worker that is kept from epoch to epoch, as long as its loader is."""

    def train_dataloader(self) -> Any:
        return DataLoader(points(80), batch_size=16, num_workers=1, persistent_workers=True)


class Endless(Both):
    """Training data without a length."""

    class Numbers(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield from points(80)

    def train_dataloader(self) -> Any:
        return DataLoader(self.Numbers(), batch_size=16)


class Harder(LightningDataModule):
    """Data of the epoch for which they are made; each hook says which that is."""

    def made(self, stage: str, count: int) -> Any:
        """Return a loader of points that move with the epochs."""
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        print(f"{stage} for epoch {epoch}", flush=True)
        x, y = points(count).tensors
        return DataLoader(TensorDataset(x + epoch, y), batch_size=16, shuffle=stage == "train")

    def train_dataloader(self) -> Any:
        return self.made("train", 80)

    def val_dataloader(self) -> Any:
        return self.made("val", 32)


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


class ByHand(LightningModule):
    """A step each second batch: of five batches an epoch the last one's gradients are left over."""

    raw = False

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Linear(8, 3)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers(use_pl_optimizer=not self.raw)
        loss = F.cross_entropy(self.net(batch[0]), batch[1]) / 2
        self.manual_backward(loss)
        if batch_idx % 2:
            optimizer.step()
            optimizer.zero_grad()
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ByRawOptimizer(ByHand):
    """Lightning counts none of its steps."""

    raw = True


class ByHandWithMomentum(ByHand):
    """Gradients of zeros, by which momentum still moves the weights."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        if batch_idx % 2:
            self.manual_backward(F.cross_entropy(self.net(batch[0]), batch[1]))
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        self.log("loss", self.net.weight.sum())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Thaws(Linear):
    """From epoch 1 on its backbone is trained and its dropout is off; the first is set at start."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)

    def on_train_start(self) -> None:
        self.backbone.requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.backbone.requires_grad_(True)
            self.drop.eval()

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(self.drop(self.backbone(batch[0]))), batch[1])


class Wrapped(Linear):
    """Metrics in wrappers, whose states are plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.extremes = MinMaxMetric(MulticlassAccuracy(3))
        self.tracker = MetricTracker(MulticlassAccuracy(3))
        self.running = RunningMean(window=7)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.running.update(loss.detach())
        self.log("running", self.running.compute())
        return loss

    def on_validation_epoch_start(self) -> None:
        self.tracker.increment()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        # worse and worse, so that the best and the largest are of a former epoch
        wrong = (batch[1] + (batch_idx < self.current_epoch)) % 3
        self.extremes.update(self.net(batch[0]), wrong)
        self.tracker.update(self.net(batch[0]), wrong)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.extremes.compute())
        self.extremes.reset()
        self.log("best", self.tracker.best_metric())


class Partial(Linear):
    """A frozen part that no checkpoint holds: strict loading is off."""

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False
        self.frozen = nn.Linear(8, 8).requires_grad_(False)

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(self.frozen(batch[0])), batch[1])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name in [n for n in checkpoint["state_dict"] if n.startswith("frozen.")]:
            del checkpoint["state_dict"][name]


class PartialByStateDict(Partial):
    """The same by a ``state_dict`` of its own, which exports hold, too."""

    on_save_checkpoint = LightningModule.on_save_checkpoint

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        whole = super().state_dict(*args, **options)
        return {name: value for name, value in whole.items() if "frozen." not in name}


class CountsWorkers(Linear):
    """Says after each epoch how many processes there are."""

    def on_train_epoch_end(self) -> None:
        print(f"workers {len(multiprocessing.active_children())}", flush=True)


class LoadsWrongly(Linear):
    """A mistake in code of the user's own."""

    def on_fit_start(self) -> None:
        nn.Linear(2, 2).load_state_dict({"weight": torch.zeros(3, 3), "bias": torch.zeros(2)})
