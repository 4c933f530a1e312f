"""A project whose model.py holds one right model and several that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

from mlmodeldev.template import init
from mlmodeldev.template.source import Answers, load_template
from mlmodeldev.testing import Project

MODEL = '''
import os

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F


class Right(LightningModule):
    def __init__(self, hidden: int = 16):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(hidden, 3)

    def forward(self, x):
        return self.head(self.net(x))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max")
        return {"optimizer": optimizer, "lr_scheduler": plateau, "monitor": "val_acc"}


class Unlearning(Right):
    """The gradient does not reach the weights."""

    def forward(self, x):
        return super().forward(x).detach() + 0 * self.head.bias


class Lossless(Right):
    """Nothing tells how it learns."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class Unseeded(Right):
    """Noise from a generator that no seed reaches."""

    def training_step(self, batch, batch_idx):
        noise = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))
        x = batch[0] + 0.1 * torch.randn(batch[0].shape, generator=noise)
        return F.cross_entropy(self(x), batch[1])


class Forgetful(Right):
    """A counter that a checkpoint does not hold."""

    steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return super().training_step(batch, batch_idx) / (1 + 0.01 * self.steps)


class Late(Right):
    """A layer that its constructor does not make."""

    def setup(self, stage):
        self.extra = nn.Linear(16, 16)

    def forward(self, x):
        return self.head(self.extra(self.net(x)))


class Crowded(Right):
    """BatchNorm in training mode, always."""

    def __init__(self, hidden: int = 16):
        super().__init__(hidden)
        self.norm = nn.BatchNorm1d(hidden)

    def forward(self, x):
        self.norm.train()
        return self.head(self.norm(self.net(x)))


class Sixteen(Right):
    """A batch size in a view."""

    def forward(self, x):
        return self.head(self.net(x).view(16, -1))


class Immobile(Right):
    """A tensor that does not move with the model."""

    def __init__(self, hidden: int = 16):
        super().__init__(hidden)
        self.scale = torch.full((hidden,), 2.0)

    def forward(self, x):
        return self.head(self.net(x) * self.scale)


class OnCuda(Right):
    """A GPU by its name."""

    def validation_step(self, batch, batch_idx):
        super().validation_step((batch[0].to("cuda"), batch[1]), batch_idx)
'''

DATA = """
import torch
from torch.utils.data import TensorDataset

from mlmodeldev.data.module import ExactDataModule


class ByIndex:
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, item):
        return self.data[item.index]


class Data(ExactDataModule):
    in_memory = True
    info = {"labels": ["a", "b", "c"]}

    def setup(self, stage=None):
        x = torch.randn(192, 8, generator=torch.Generator().manual_seed(7))
        y = (x[:, :3] + 0.1).argmax(1)
        parts = [ByIndex(TensorDataset(x[i::3], y[i::3])) for i in range(3)]
        self.train_set, self.val_set, self.test_set = parts
"""

SETTINGS = (
    "model=mine",
    "data=mine",
    "logger=csv",
    "training.accelerator=cpu",
    "training.max_epochs=2",
    "training.monitor=val_acc",
    "training.test=false",
    "training.gradient_clip_val=null",
    "processing.batch_size=16",
    "callbacks.cka.enabled=false",
)
CHECKS = (
    "learns_one_batch",
    "resumes_exactly",
    "exports_load_back",
    "outputs_rest_on_the_example",
    "runs_on_any_device",
    "cka_layers_exist",
)


def write_project(folder: Path) -> Path:
    """Write the project; return its folder."""
    init.create(folder, load_template(), Answers("mine", requirement="-e /somewhere"))
    (folder / "model.py").write_text(MODEL)
    (folder / "datamodule.py").write_text(DATA)
    (folder / "conf" / "data" / "mine.yaml").write_text("_target_: datamodule.Data\n")
    (folder / "conf" / "model" / "mine.yaml").write_text("_target_: model.Right\n")
    return folder


def checked(root: Path, runs: Path, kind: str, *more: str) -> Project:
    """Return the checks of one of the project's models."""
    return Project(root, runs, *SETTINGS, f"model._target_=model.{kind}", *more)
