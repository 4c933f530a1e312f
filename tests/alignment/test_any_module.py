"""CKA of modules of every make: what their forward takes, and what validation hands them.

The oracle is the module itself, deep-copied before training and run by hand on the same batches.
"""

from __future__ import annotations

import copy
import random
import threading
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from mlmodeldev.alignment import results
from mlmodeldev.alignment.callback import CKACallback
from mlmodeldev.alignment.metric import CKA
from mlmodeldev.errors import UsageError

warnings.filterwarnings("ignore", module="pytorch_lightning")

X = torch.randn(48, 8, generator=torch.Generator().manual_seed(3))
Y = (X[:, :3]).argmax(1)


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    monkeypatch.setattr(results, "picture", lambda result: result)
    monkeypatch.setattr(results, "draw_drift", lambda *args, **kwargs: None)
    monkeypatch.setattr(results, "save_figure", lambda figure, path: path.write_bytes(b"picture"))


def tuples():
    return DataLoader(TensorDataset(X, Y), 16)


def dicts():
    return DataLoader([{"x": x, "y": y} for x, y in zip(X, Y, strict=True)], 16)


def fit(folder, module, loader, compare=None, epochs=2, **options):
    pl.seed_everything(7)
    extra = [CKACallback(compare, folder)] if compare else []
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=extra,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": False, **options},
    )
    trainer.fit(module, loader(), loader())
    return trainer


def matrix(folder, name="drift", epoch=2):
    with np.load(folder / "cka" / name / f"epoch-{epoch:04d}.npz") as saved:
        return dict(saved)


class Base(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch if isinstance(batch, (list, tuple)) else (batch["x"], batch["y"])
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


class NoForward(Base):
    def validation_step(self, batch):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y))


class SeveralArguments(Base):
    def forward(self, x, scale, *, shift):
        return self.net(x * scale + shift)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self(batch[0], 2.0, shift=0.5)


class PopsFromTheBatch(Base):
    def validation_step(self, batch, batch_idx):
        y = batch.pop("y")
        batch["x"].mul_(1.0)
        self.log("val_loss", F.cross_entropy(self.net(batch.pop("x")), y), batch_size=16)


def by_hand(module, first, scale=1.0, shift=0.0):
    metric = CKA(["net.0", "net.3"])
    with torch.no_grad():
        for start in range(0, 48, 16):
            sides = []
            for model in (module.eval(), first.eval()):
                hidden = model.net[0](X[start : start + 16] * scale + shift)
                sides.append({"net.0": hidden, "net.3": model.net[3](hidden.relu())})
            metric.update(*sides)
    return metric.compute().numpy()


@pytest.mark.parametrize(
    "kind, loader, how",
    [
        (NoForward, tuples, {}),
        (SeveralArguments, tuples, {"scale": 2.0, "shift": 0.5}),
        (PopsFromTheBatch, dicts, {}),
    ],
)
def test_drift_is_that_of_the_models_run_by_hand(tmp_path, kind, loader, how):
    module = kind()
    first, x = copy.deepcopy(module), X.clone()
    fit(tmp_path, module, loader, {"drift": {"a": ["net.0", "net.3"], "against": "start"}})
    assert np.allclose(matrix(tmp_path)["matrix"], by_hand(module, first, **how), atol=1e-9)
    assert torch.equal(X, x)


class Full(Base):
    """All that a copy's validation could disturb."""

    def __init__(self):
        super().__init__()
        self.accuracy = MulticlassAccuracy(3)
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("seen", torch.zeros(()))
        self.lock = threading.Lock()
        self.outputs, self.draws, self.logged = [], [], []

    def on_validation_epoch_start(self):
        self.prototypes = torch.eye(3)
        self.norm.train()

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.seen += 1
        noise = torch.randn(1).item() + random.random() + np.random.rand()
        out = self.net(self.norm(x) + noise) @ self.prototypes
        self.draws.append(noise)
        self.outputs.append(out)
        self.accuracy(out, y)
        self.log("val_acc", self.accuracy)
        self.logger.experiment.add_scalar("x", 1.0)
        assert self.trainer.current_epoch == self.current_epoch
        assert self.trainer.callback_metrics is not None

    def on_validation_epoch_end(self):
        self.logged.append(torch.cat(self.outputs))
        self.outputs.clear()


class Counting(pl.loggers.logger.DummyLogger):
    count = 0

    @property
    def experiment(self):
        return self

    def add_scalar(self, *_):
        self.count += 1


def test_nothing_of_the_run_changes(tmp_path):
    compare = {
        "drift": {"a": ["net.*", "norm"], "against": "start"},
        "steps": {"a": "net.*", "against": "previous"},
    }
    ends = []
    for chosen in (None, compare):
        module = Full()
        pl.seed_everything(7)
        logger = Counting()
        trainer = pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=logger,
            callbacks=[CKACallback(chosen, tmp_path)] if chosen else [],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, tuples(), tuples())
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if "cka" not in k}
        ends.append((module, metrics, logger.count))
    (plain, metrics, count), (watched, others, again) = ends
    assert plain.draws == watched.draws
    assert all(torch.equal(a, b) for a, b in zip(plain.logged, watched.logged, strict=True))
    assert metrics == others and count == again and float(watched.seen) == float(plain.seen)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert matrix(tmp_path, epoch=3)["matrix"].shape == (5, 5)


def test_an_unchanged_model_is_like_its_start_whatever_validation_draws(tmp_path):
    """Random numbers, running means in validation and attributes set by hooks are the same."""
    module = Full()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
    fit(tmp_path, module, tuples, {"drift": {"a": ["norm", "net.*"], "against": "start"}},
        logger=Counting())  # fmt: skip
    assert np.allclose(np.diagonal(matrix(tmp_path)["matrix"]), 1, atol=1e-12)


def test_a_transformers_module_with_labels_in_its_batch(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=20, num_hidden_layers=2, **sizes)

    class Sentences(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = BertForSequenceClassification(config)

        def forward(self, **inputs):
            return self.model(**inputs)

        def training_step(self, batch, batch_idx):
            return self(**batch).loss

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self(**batch)["loss"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def loader():
        ids = torch.randint(0, 20, (24, 5), generator=torch.Generator().manual_seed(0))
        return DataLoader([{"input_ids": one, "labels": one[0] % 2} for one in ids], 8)

    with pytest.warns(UserWarning, match="layers are left out") as warned:
        fit(tmp_path, Sentences(), loader, {"drift": {"a": "**", "against": "start"}})
    assert len([w for w in warned if "left out" in str(w.message)]) == 1, "once, not every epoch"
    rows = list(matrix(tmp_path)["rows"])
    assert "model" in rows, "the logits are read, not the loss that comes first"
    assert {f"model.bert.encoder.layer.{n}" for n in (0, 1)} <= set(rows)
    assert "model.bert.encoder.layer" in matrix(tmp_path)["left_out"], "a list of layers never runs"


class Odd(Base):
    """Layers of which no features come, or not always."""

    def __init__(self):
        super().__init__()
        self.loss, self.unused, self.sometimes = nn.CrossEntropyLoss(), nn.Linear(2, 2), nn.ReLU()
        self.best, self.both, self.rows = Best(), Both(), Rows()

    def validation_step(self, batch, batch_idx):
        out = self.net(batch[0])
        self.loss(out, batch[1])
        self.best(out)
        self.rows(out)
        self.both(out)
        if batch_idx:
            self.sometimes(out)


class Best(nn.Module):
    def forward(self, x):
        return x.argmax(1)


class Both(nn.Module):
    def forward(self, x):
        return x.mean(), x.argmax(1), [x], x * 2


class Rows(nn.Module):
    def forward(self, x):
        return x.flatten(0, 1)[:, None]


def test_what_gives_no_features_is_left_out_by_name(tmp_path):
    compare = {"all": {"a": "**"}, "none": {"a": ["loss", "unused"], "against": "start"}}
    with pytest.warns(UserWarning, match="left out") as warned:
        trainer = fit(tmp_path, Odd(), tuples, compare)
    (line,) = [str(w.message) for w in warned if "cka: all" in str(w.message)]
    assert "\n" not in line
    assert line.startswith("cka: all: 5 of 11 layers are left out: ")
    for part in ("'loss' gives a single number", "'best' gives int64", "'unused' did not run",
                 "'rows' gives 48 rows for 16 examples", "'sometimes' did not run"):  # fmt: skip
        assert part in line
    saved = matrix(tmp_path, "all")
    assert list(saved["rows"]) == ["net", "net.0", "net.1", "net.2", "net.3", "both"]
    assert np.isfinite(saved["matrix"]).all()
    assert any("cka: none: 2 of 2 layers" in str(w.message) for w in warned)
    assert not (tmp_path / "cka" / "none").exists()
    assert not any("none" in key for key in trainer.callback_metrics)


def test_the_same_matrix_with_and_without_what_is_left_out(tmp_path):
    fit(tmp_path / "few", Odd(), tuples, {"all": {"a": ["net", "net.*", "both"]}})
    with pytest.warns(UserWarning, match="left out"):
        fit(tmp_path / "all", Odd(), tuples, {"all": {"a": "**"}})
    few, whole = (matrix(tmp_path / name, "all")["matrix"] for name in ("few", "all"))
    assert np.allclose(few, whole, rtol=0, atol=1e-12)


def test_pairs_leave_together(tmp_path):
    compare = {"two": {"a": ["net.0", "loss", "net.3"], "b": ["net.1", "net.2", "both"]}}
    with pytest.warns(UserWarning, match="2 of 6 layers are left out"):
        trainer = fit(tmp_path, Odd(), tuples, compare)
    assert list(matrix(tmp_path, "two")["rows"]) == ["net.0", "net.3"]
    assert list(matrix(tmp_path, "two")["columns"]) == ["net.1", "both"]
    assert "cka/net.3~both" in trainer.callback_metrics


def test_a_step_that_fails_on_a_copy_is_named(tmp_path):
    class Once(Base):
        calls = 0

        def validation_step(self, batch, batch_idx):
            type(self).calls += 1
            assert type(self).calls == 1, "only once"
            self.net(batch[0])

    with pytest.raises(UsageError, match="validation_step of Once fails on a copy of it: only"):
        fit(tmp_path, Once(), tuples, {"drift": {"a": "net.0", "against": "start"}},
            limit_val_batches=1, num_sanity_val_steps=0)  # fmt: skip


def test_without_validation_it_says_that_nothing_is_measured(tmp_path):
    with pytest.warns(UserWarning, match="there is no validation"):
        fit(tmp_path, Base(), tuples, {"drift": {"a": "net.0", "against": "start"}})
