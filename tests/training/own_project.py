"""A project with classes of a user's own, as people write them for Lightning, and its trainer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

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


class Points(ExactDataModule):
    in_memory = True
    info = {"classes": 3, "labels": ["a", "b", "c"]}

    def setup(self, stage=None):
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(96, 8, generator=generator)
        y = (x @ torch.randn(8, 3, generator=generator)).argmax(1)
        self.train_set = ByIndex(TensorDataset(x[:64], y[:64]))
        self.val_set = ByIndex(TensorDataset(x[64:], y[64:]))
"""

NETS = """
import torch
import lightning as L
from lightning.pytorch import Callback, LightningModule
from torch import nn
from torch.nn import functional as F


class Net(LightningModule):
    # classes has no default: the data fill it
    def __init__(self, classes: int, hidden: int = 4, act: nn.Module | None = None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, hidden), act or nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


class OwnRate(Net):
    def __init__(self, classes: int, learning_rate: float = 0.1):
        super().__init__(classes)
        self.learning_rate = learning_rate

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


class Gan(L.LightningModule):
    '''Two optimizers by hand; in each step one of the two parts has no gradients.'''

    def __init__(self, lr: float = 0.01):
        super().__init__()
        self.automatic_optimization = False
        self.lr = lr
        self.generator, self.critic = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, z):
        return self.generator(z)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        made = self(torch.randn(len(batch[0]), 4, device=self.device))
        fake, real = self.critic(made.detach()), self.critic(batch[0])
        loss = F.softplus(fake).mean() + F.softplus(-real).mean()
        second.zero_grad()
        self.manual_backward(loss)
        second.step()
        self.toggle_optimizer(first)
        loss = F.softplus(-self.critic(self(torch.randn(len(batch[0]), 4)))).mean()
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        self.untoggle_optimizer(first)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.critic(batch[0]).mean(), sync_dist=True)

    def configure_optimizers(self):
        parts = (self.generator, self.critic)
        return [torch.optim.Adam(part.parameters(), self.lr) for part in parts]


class Writer(Callback):
    '''Writes down each validation.'''

    def __init__(self, file: str, times: int = 1):
        self.file, self.times = file, times

    def on_validation_end(self, trainer, module):
        with open(self.file, "a") as file:
            file.write(f"{trainer.global_step}\\n" * self.times)
"""

FRONT = "from .nets import Gan, Net, OwnRate\n"


@dataclass
class Project:
    """A folder with ``trainer.py``, ``conf/`` and a package ``zoo`` of the user's."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Project:
        """Write it."""
        shutil.copytree(ROOT / "conf", root / "conf")
        shutil.copy(ROOT / "trainer.py", root)
        project = cls(root)
        project.write("zoo/__init__.py", FRONT)
        project.write("zoo/nets.py", NETS)
        project.write("points.py", DATA)
        project.write("conf/data/points.yaml", "_target_: points.Points\n")
        for name in ("Net", "OwnRate", "Gan"):
            project.write(f"conf/model/{name.lower()}.yaml", f"_target_: zoo.{name}\n")
        return project

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def train(
        self, trial: str, *overrides: str, before: Sequence[str] = ()
    ) -> tuple[int, str, Path]:
        """Run trainer.py; return the exit status, what it printed, and the trial's folder.

        Args:
            trial: its name.
            overrides: more settings.
            before: words in front of the command line.
        """
        wanted = (
            *("data=points", "logger=csv", "training.monitor=val_loss", "training.mode=min"),
            *("training.max_epochs=2", "training.accelerator=cpu", f"artefacts.trial={trial}"),
        )
        done = subprocess.run(
            [*before, sys.executable, "trainer.py", *wanted, *overrides],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        return done.returncode, done.stdout, self.root / "runs/single" / trial
