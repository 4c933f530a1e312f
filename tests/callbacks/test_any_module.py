"""The callbacks with modules of every make: no loss, steps by hand, several optimizers or none."""

from __future__ import annotations

import json
import logging
import re

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from mlmodeldev.callbacks.epoch_log import EpochLog
from mlmodeldev.callbacks.nonfinite import NonFinite, NonFiniteLoss
from mlmodeldev.callbacks.progress import ProgressReport
from mlmodeldev.callbacks.samples import Samples
from mlmodeldev.callbacks.throughput import Throughput


class Plain(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 2)

    def loss(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SkipsAll(Plain):
    def training_step(self, batch, batch_idx):
        return None


class NoOptimizer(Plain):
    def configure_optimizers(self):
        return None


class ByHand(Plain):
    """Two optimizers; both losses go backward before either steps, the worst order."""

    bad_at: int | None = None
    raw = False

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers(use_pl_optimizer=not self.raw)
        first.zero_grad(), second.zero_grad()
        factor = float("nan") if batch_idx == self.bad_at else 1.0
        self.manual_backward(self.loss(batch))
        g_loss = F.cross_entropy(self.other(batch[0]), batch[1]) * factor
        self.manual_backward(g_loss)
        self.log("g_loss", g_loss.nan_to_num())
        first.step(), second.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net, self.other)]


class Odd(Plain):
    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        return {"loss": self.loss(batch), "extra": "text"}

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        return {"index": 1, "label": "a", "prediction": None, "probability": 0.5}


def loader(rows=12, size=4):
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), size)


class Endless(IterableDataset):
    def __iter__(self):
        for x in torch.ones(12, 4):
            yield x, 1


def fit(folder, module, *more, train=None, **options):
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=pl.loggers.CSVLogger(folder, flush_logs_every_n_steps=1),
        callbacks=[
            EpochLog(folder / "log.json"),
            Throughput(batch_size=999),
            ProgressReport(1e-9, "val_loss"),
            Samples(folder / "samples.csv"),
            *more,
        ],
        enable_model_summary=False,
        **{"max_epochs": 2, "log_every_n_steps": 1, "num_sanity_val_steps": 0, **options},
    )
    trainer.fit(module, loader() if train is None else train, loader())
    return json.loads((folder / "log.json").read_text())


@pytest.mark.parametrize(
    "kind, logged, has_loss, has_rate",
    [
        (Plain, {"train_loss", "val_loss"}, True, True),
        (SkipsAll, {"val_loss"}, False, True),
        (NoOptimizer, {"train_loss", "val_loss"}, True, False),
        (ByHand, {"g_loss", "val_loss"}, False, True),
        (Odd, {"train_loss", "val_loss"}, True, True),
    ],
)
def test_what_was_logged_is_shown_and_written(
    tmp_path, capsys, kind, logged, has_loss, has_rate
) -> None:
    log = fit(tmp_path, kind(), NonFinite("raise"))
    lines = capsys.readouterr().out.splitlines()
    ends = [line for line in lines if "TRAIN" not in line and "VALID" not in line]
    for number, (entry, line) in enumerate(zip(log, ends, strict=True), 1):
        extra = {"lr"} if has_rate else set()
        loss = {"train/loss"} if has_loss else set()
        assert set(entry) == {"epoch", "step"} | logged | extra | loss
        shown = re.findall(r"  (\S+) (\S+)", line)
        assert line.startswith(f"epoch {number}/2  val_loss ")
        assert {name for name, _ in shown} == logged | extra
        assert float(dict(shown)["val_loss"]) == pytest.approx(entry["val_loss"], rel=1e-3)
    within = [line for line in lines if "TRAIN" in line]
    assert len(within) == 6
    assert all(("  loss " in line) == has_loss for line in within)
    if kind is ByHand:
        assert all("  g_loss " in line for line in within)
    assert not (tmp_path / "samples.csv").exists()


def test_values_of_an_earlier_validation_are_not_this_epochs(tmp_path) -> None:
    log = fit(tmp_path, Plain(), max_epochs=3, check_val_every_n_epoch=2)
    assert ["val_loss" in entry for entry in log] == [False, True, False]
    assert all("train_loss" in entry for entry in log)


def test_data_without_a_length(tmp_path, capsys) -> None:
    fit(tmp_path, Plain(), train=DataLoader(Endless(), 4), max_epochs=1)
    assert re.search(r"epoch 1/1  TRAIN  3  loss ", capsys.readouterr().out)


def test_examples_are_counted_in_the_batches_themselves(tmp_path) -> None:
    """Eleven in threes: 3, 3, 3, 2, whatever the settings say."""
    import csv

    fit(tmp_path, Plain(), train=loader(11, 3), max_epochs=1)
    (file,) = tmp_path.rglob("metrics.csv")
    with file.open() as rows:
        speeds = [
            float(row["time/samples_per_second"]) * float(row["time/step_seconds"])
            for row in csv.DictReader(rows)
            if row.get("time/step_seconds")
        ]
    assert speeds == pytest.approx([3, 3, 3, 2], rel=1e-3)


def finite(module) -> bool:
    return all(bool(value.isfinite().all()) for value in module.parameters())


@pytest.mark.parametrize("policy", ["skip", "stop", "raise"])
def test_steps_by_hand_are_never_taken_with_bad_gradients(tmp_path, policy) -> None:
    module = ByHand()
    module.bad_at = 1
    if policy == "raise":
        with pytest.raises(NonFiniteLoss, match="not finite at step"):
            fit(tmp_path, module, NonFinite(policy))
    else:
        fit(tmp_path, module, NonFinite(policy))
    assert finite(module)


def test_without_it_they_would_be(tmp_path) -> None:
    module = ByHand()
    module.bad_at = 1
    fit(tmp_path, module)
    assert not finite(module)


def test_losses_do_not_pile_up_and_what_can_not_be_skipped_warns_once(tmp_path, caplog) -> None:
    module, watch = ByHand(), NonFinite("skip")
    module.raw, module.bad_at = True, 2
    with caplog.at_level(logging.WARNING):
        fit(tmp_path, module, watch, train=loader(12 * 40), max_epochs=2)
    assert len(watch._losses) < 64
    assert caplog.text.count("can't act, as the optimizer is stepped without Lightning") == 1
    with pytest.raises(NonFiniteLoss, match="stepped without Lightning"):
        again = ByHand()
        again.raw, again.bad_at = True, 2
        fit(tmp_path, again, NonFinite("raise"), train=loader(12 * 40), max_epochs=1)
