"""Outputs that are no plain (batch, …): time first, sparse, nested, channels last, empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from mlmodeldev.alignment import CKA, Capture, CKACallback


def read(output, pooling="mean", **options):
    """Return what `Capture` makes of a layer's output, and why it makes nothing of it."""
    model = nn.Sequential(nn.Identity())
    with Capture(model, ["0"], pooling=pooling, **options) as capture:
        model(output)
        return capture.take_usable()


@pytest.mark.parametrize("pooling", ["mean", "flatten"])
def test_sparse_outputs_are_their_dense_selves(pooling) -> None:
    dense = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).relu()
    for sparse in (dense.to_sparse(), dense.to_sparse_csr()):
        assert torch.equal(read(sparse, pooling)[0]["0"], dense)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_outputs_are_averaged_over_their_own_tokens(layout) -> None:
    parts = [torch.randn(2 + i % 3, 4) for i in range(6)]
    nested = torch.nested.nested_tensor(parts, layout=layout)
    wanted = torch.stack([part.mean(0) for part in parts])
    assert torch.allclose(read(nested)[0]["0"], wanted)
    kept, reasons = read(nested, "flatten")
    assert not kept and "nested" in reasons["0"] and "'mean'" in reasons["0"]


def test_a_module_that_gives_channels_last_scores_as_one_that_does_not() -> None:
    x = torch.randn(12, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    metric = CKA(["first", "memory", "last"])
    layers = {"first": x, "memory": x.to(memory_format=torch.channels_last)}
    metric.update(layers | {"last": x.permute(0, 2, 3, 1).contiguous()})
    assert torch.allclose(metric.compute(), torch.ones(3, 3, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (0, 300)])
def test_a_batch_of_no_samples_is_counted_as_too_small(shape) -> None:
    metric = CKA(["x"])
    metric.update({"x": torch.zeros(shape)})
    metric.update({"x": torch.randn(8, 4)})
    with pytest.warns(UserWarning, match="1 of 2 batches have under 4 samples"):
        assert metric.compute()[0, 0].item() == pytest.approx(1)


class TimeFirst(LightningModule):
    """Gives (time, batch, dim), as recurrent layers do by default."""

    def __init__(self, compiled: bool = False) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 5)
        self.head: nn.Module = nn.Linear(5, 2)
        if compiled:
            self.head = torch.compile(self.head, backend="eager")  # type: ignore[assignment]

    def forward(self, x):
        return self.head(self.rnn(x.transpose(0, 1))[0])

    def training_step(self, batch, batch_idx):
        return self(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder, module, **options):
    data = torch.randn(32, 7, 3, generator=torch.Generator().manual_seed(1))
    callback = CKACallback(
        {"all": {"a": ["rnn", "head"]}, "drift": {"a": "rnn", "against": "start"}},
        folder,
        **options,
    )
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    trainer.fit(module, DataLoader(data, batch_size=16), DataLoader(data, batch_size=16))
    names = ("all", "drift")
    return {n: np.load(folder / "cka" / n / "epoch-0001.npz") for n in names}, data


@pytest.mark.parametrize("compiled", [False, True])
def test_time_first_layers_through_the_callback(tmp_path, compiled) -> None:
    torch.manual_seed(0)
    module = TimeFirst(compiled)
    results, data = fit(tmp_path, module, batch_dim=1)
    assert results["all"]["samples"] == 32
    metric = CKA(["rnn", "head"])
    with torch.no_grad():
        for batch in data.split(16):
            states = module.rnn(batch.transpose(0, 1))[0]
            metric.update({"rnn": states.mean(0), "head": module.head(states).mean(0)})
    assert results["all"]["matrix"] == pytest.approx(metric.compute().numpy(), abs=1e-6)
    assert results["drift"]["matrix"][0, 0] > 0.9
