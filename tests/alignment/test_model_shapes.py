"""Seven shapes that people give their models, each compared with its start.

forward(x), forward(**kwargs), a dict, a tuple, a GAN, a Hugging Face image and a text model. The
oracle: outputs of the trained module and of a deep copy of its start, pooled and compared in numpy.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from mlmodeldev.alignment import CKACallback, results
from tests.alignment import oracles

warnings.filterwarnings("ignore", module="pytorch_lightning")
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
DRAW = torch.Generator().manual_seed(3)
X = torch.randn(40, 8, generator=DRAW)
Y = X[:, :3].argmax(1)
ROWS = tuple({"x": x, "y": y} for x, y in zip(X, Y, strict=True))


class Shape(pl.LightningModule):
    """A net on 8 numbers, three classes; `call` is how validation runs the model on a batch."""

    data = tuple(zip(X, Y, strict=True))
    layers = ("net.0", "net.3")

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))

    def call(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.call(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.call(batch, batch_idx), batch_size=8)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


class TakesX(Shape):
    def forward(self, x):
        return self.net(x)


class TakesKeywords(Shape):
    data = ROWS

    def forward(self, **inputs):
        return F.cross_entropy(self.net(inputs["x"]), inputs["y"])

    def call(self, batch, batch_idx):
        return self(**batch)


class Scores(nn.Module):
    def forward(self, hidden):
        return {"count": len(hidden), "scores": hidden * 2}


class TakesAndGivesADict(Shape):
    data = ROWS
    layers = ("net.0", "scores")

    def __init__(self):
        super().__init__()
        self.scores = Scores()

    def forward(self, batch):
        return self.scores(self.net(batch["x"]))

    def call(self, batch, batch_idx):
        return F.cross_entropy(self(batch)["scores"], batch["y"])


class TakesAndGivesATuple(Shape):
    data = tuple(zip(X.view(40, 2, 4), X.flip(1), Y, strict=True))
    layers = ("rnn", "net.3")

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 5, batch_first=True)

    def forward(self, batch):
        tokens, x, _ = batch
        return self.rnn(tokens)[0].sum(1)[:, :3], self.net(x)

    def call(self, batch, batch_idx):
        one, other = self(batch)
        return F.cross_entropy(one + other, batch[2])


class Gan(Shape):
    """Two optimizers by hand; the judge runs twice in each step, on noise that is kept."""

    layers = ("make", "judge.0", "judge.0#1")

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.make, self.judge = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 1))
        self.net = None
        self.noise = {}

    def forward(self, z):
        return self.make(z)

    def call(self, batch, batch_idx):
        z = self.noise.get(batch_idx, torch.randn(len(batch[0]), 4))
        return (self.judge(self(z)) - self.judge(batch[0])).mean()

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.call(batch, batch_idx))
            optimizer.step()

    def validation_step(self, batch, batch_idx):
        z = torch.randn(len(batch[0]), 4)
        if self.trainer.current_epoch:
            self.noise[batch_idx] = z
        self.log("gap", (self.judge(self(z)) - self.judge(batch[0])).mean())

    def configure_optimizers(self):
        parts = (self.make, self.judge)
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in parts], []


class Hub(Shape):
    """A model of transformers with labels in its batch; it gives a dataclass, its loss first."""

    def __init__(self):
        super().__init__()
        self.net, self.model = None, self.build()

    def forward(self, **inputs):
        return self.model(**inputs)

    def call(self, batch, batch_idx):
        return self(**batch).loss


class HubImage(Hub):
    data = tuple(
        {"pixel_values": x, "labels": y}
        for x, y in zip(torch.randn(40, 1, 8, 8, generator=DRAW), Y, strict=True)
    )
    layers = ("model.vit.layers.0", "model.vit.layers.1", "model")

    def build(self):
        from transformers import ViTConfig, ViTForImageClassification

        size = {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_hidden_layers": 2}
        return ViTForImageClassification(ViTConfig(num_labels=3, **size, **SIZES))


class HubText(Hub):
    data = tuple(
        {"input_ids": ids, "attention_mask": (torch.arange(6) < 3 + i % 4).long(), "labels": y}
        for i, (ids, y) in enumerate(
            zip(torch.randint(0, 20, (40, 6), generator=DRAW), Y, strict=True)
        )
    )
    layers = ("model.bert.encoder.layer.0", "model.bert.encoder.layer.1", "model")

    def build(self):
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(vocab_size=20, num_hidden_layers=2, num_labels=3, **SIZES)
        return BertForSequenceClassification(config)


def features(module, batch, number):
    """Return what the layers give, pooled, by name: the n-th call's as name#n."""
    seen, handles, calls = {}, [], defaultdict(int)
    for name in {layer.partition("#")[0] for layer in module.layers}:

        def keep(_module, _inputs, output, name=name):
            if isinstance(output, dict):
                output = output["logits" if name == "model" else "scores"]
            output = output[0] if isinstance(output, tuple) else output
            count = calls[name]
            calls[name] += 1
            array = output.double().numpy()
            seen[f"{name}#{count}" if count else name] = array.mean(1) if array.ndim == 3 else array

        handles.append(module.get_submodule(name).register_forward_hook(keep))
    with torch.no_grad():
        module.eval().call(batch, number)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    "kind",
    [TakesX, TakesKeywords, TakesAndGivesADict, TakesAndGivesATuple, Gan, HubImage, HubText],
)
def test_against_start(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(results, "picture", lambda result: result)
    monkeypatch.setattr(results, "draw_drift", lambda *args, **kwargs: None)
    monkeypatch.setattr(results, "save_figure", lambda figure, path: path.write_bytes(b"picture"))
    pl.seed_everything(7)
    module = kind()
    start = copy.deepcopy(module)
    callback = CKACallback({"drift": {"a": list(kind.layers), "against": "start"}}, tmp_path)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(kind.data, 16)
    trainer.fit(module, loader, loader)
    if kind is Gan:
        start.noise = module.noise
        assert len(module.noise) == 3
    pairs = [
        tuple(features(one, batch, number) for one in (module, start))
        for number, batch in enumerate(loader)
    ]
    wanted = [
        [oracles.cka([(now[row], then[column]) for now, then in pairs]) for column in kind.layers]
        for row in kind.layers
    ]
    with np.load(tmp_path / "cka" / "drift" / "epoch-0002.npz") as saved:
        assert list(saved["rows"]) == list(saved["columns"]) == list(kind.layers)
        assert saved["samples"] == 40
        assert saved["matrix"] == pytest.approx(np.array(wanted), abs=2e-6)
        assert saved["matrix"].diagonal().min() < 0.999, "training moved it"
