"""A small LightningModule of two towers, and a fit of it, for the callback's tests.

module, trainer = fit(folder, CKACallback(COMPARE, folder), epochs=2)
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

COMPARE = {
    "towers": {"a": "image.*", "b": "text.*"},
    "drift": {"a": ["image.*", "text.2"], "against": "start"},
    "steps": {"a": "image.*", "against": "previous"},
    "inside": {"a": "re:(image|text).[02]"},
}


class Towers(pl.LightningModule):
    """Two towers over the halves of the input, with dropout, batch norm and noise in validation."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Linear(16, 8))
        self.text = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 8))
        self.drop = nn.Dropout(0.3)
        self.text[0].bias.requires_grad_(False)
        self.losses, self.fail_at, self.sizes = [], fail_at, []

    def forward(self, batch):
        a, b = batch
        return self.image(self.drop(a)), self.text(b)

    def training_step(self, batch, batch_idx):
        a, b = self(batch)
        loss = (a - b).square().mean() - 0.1 * a.std()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        if self.fail_at == self.current_epoch and not self.trainer.sanity_checking:
            raise KeyboardInterrupt
        noisy = [part + 0.1 * torch.randn_like(part) for part in batch]
        a, b = self(noisy)
        self.sizes.append(len(a))
        self.log("val/loss", (a - b).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD((p for p in self.parameters() if p.requires_grad), lr=0.3)


def loaders():
    x = torch.randn(96, 12, generator=torch.Generator().manual_seed(3))
    data = TensorDataset(x[:, :6], x[:, 6:])
    make = torch.Generator().manual_seed(5)
    return DataLoader(data, 16, shuffle=True, generator=make), DataLoader(data, 20)


def fit(folder, *callbacks, epochs=3, ckpt_path=None, module=None, **options):
    pl.seed_everything(7)
    module = module or Towers()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": False, **options},
    )
    trainer.fit(module, *loaders(), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return module, trainer
