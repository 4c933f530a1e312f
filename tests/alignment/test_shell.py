"""`python -m mlmodeldev.alignment`: the same numbers from the shell, and errors of one line."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer, ViTConfig, ViTModel

from mlmodeldev.alignment import CKA
from mlmodeldev.alignment.__main__ import main
from mlmodeldev.alignment.capture import Capture
from tests.alignment import oracles

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


class Small(pl.LightningModule):
    """A module whose checkpoint the shell opens; its forward takes the batch."""

    def __init__(self, width=6):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))

    def forward(self, batch):
        return self.body(batch["x"])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    config = ViTConfig(num_hidden_layers=3, image_size=8, patch_size=4, num_channels=1, **SIZES)
    for index, name in enumerate(("a", "b")):
        torch.manual_seed(index)
        ViTModel(config).save_pretrained(folder / name)
    pixels = torch.randn(40, 1, 8, 8)
    np.savez(folder / "data.npz", pixel_values=pixels.numpy(), labels=np.arange(40))
    np.save(folder / "data.npy", pixels.numpy())
    save_file({"pixel_values": pixels}, folder / "data.safetensors")
    return folder


def features(folder, name):
    model = ViTModel.from_pretrained(folder / name).eval()
    pixels = torch.from_numpy(np.load(folder / "data.npy"))
    with torch.no_grad(), Capture(model, ["layers.1"], pooling="mean") as capture:
        model(pixels)
        return capture.take()["layers.1"].numpy()


@pytest.mark.parametrize("suffix", ["npz", "npy", "safetensors"])
def test_two_folders_give_the_textbook_number(models, tmp_path, capsys, suffix):
    out = tmp_path / "map.svg"
    arguments = [str(models / "a"), str(models / "b"), "--data", str(models / f"data.{suffix}")]
    arguments += ["--layers", "layers.*", "--out", str(out), "--permutations", "39"]
    assert main(arguments) == 0
    with np.load(out.with_suffix(".npz")) as saved:
        assert saved["matrix"].shape == (3, 3) and saved["samples"] == 40
        best = saved["matrix"].max()
        assert (saved["p_values"] == 1 / 40).all() and (saved["floor"] < 0.1).all()
        want = oracles.cka([(features(models, "a"), features(models, "b"))])
        assert saved["matrix"][1, 1] == pytest.approx(want, abs=1e-6)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("mean_diagonal") and printed[1] == "significant 1.0000"
    assert printed[2].startswith("most alike: layers.")
    assert printed[2].endswith(f" {best:.4f}, family-wise p = 0.0250")
    assert printed[3:] == [
        str(out),
        str(out.with_suffix(".npz")),
    ]


def test_samples_are_the_same_for_both_models_and_chosen_by_the_seed(models, tmp_path):
    common = [str(models / "a"), str(models / "a"), "--data", str(models / "data.npz")]
    common += ["--layers", "layers.0", "--layers-b", "layers.*", "--samples", "24"]
    for name, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        assert main([*common, "--seed", seed, "--out", str(tmp_path / f"{name}.png")]) == 0
    got = {n: np.load(tmp_path / f"{n}.npz")["matrix"] for n in ("one", "two", "three")}
    assert got["one"][0, 0] == pytest.approx(1)
    assert np.array_equal(got["one"], got["two"]) and not np.allclose(got["one"], got["three"])


def test_one_model_with_units_that_are_a_sample(models, tmp_path, capsys):
    common = [str(models / "a"), str(models / "a"), "--data", str(models / "data.npz")]
    common += ["--layers", "layers.*", "--feature-correction", "--out", str(tmp_path / "a.png")]
    assert main(common) == 0
    metric = CKA([f"layers.{n}" for n in range(3)], feature_correction=True)
    model = ViTModel.from_pretrained(models / "a").eval()
    with torch.no_grad(), Capture(model, metric.layers_a, pooling="mean") as capture:
        model(torch.from_numpy(np.load(models / "data.npy")))
        metric.update(capture.take())
    saved = np.load(tmp_path / "a.npz")
    assert saved["matrix"] == pytest.approx(metric.compute().numpy(), abs=1e-6)
    assert np.diagonal(saved["matrix"]) == pytest.approx(1)
    assert saved["feature_correction"]
    capsys.readouterr()
    assert main([*common, "--kernel", "rbf"]) == 2
    assert capsys.readouterr().err == (
        "error: feature_correction=True goes with kernel=linear, not rbf\n"
    )


def test_text_goes_through_each_models_tokenizer(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(num_hidden_layers=2, vocab_size=len(words), **SIZES)
    for name in ("a", "b"):
        BertModel(config).save_pretrained(tmp_path / name)
        BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / name)
    lines = [" ".join(np.random.default_rng(i).choice(list("abcd"), 5)) for i in range(16)]
    (tmp_path / "probe.txt").write_text("\n".join(lines))
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--data", str(tmp_path / "probe.txt")]
    out = tmp_path / "out.png"
    assert main([*arguments, "--layers", "encoder.layer.*", "--out", str(out)]) == 0
    assert np.load(out.with_suffix(".npz"))["matrix"].shape == (2, 2)


def test_lightning_checkpoints_open_with_their_class(tmp_path):
    for name in ("a", "b"):
        trainer = pl.Trainer(accelerator="cpu", logger=False, barebones=True)
        trainer.strategy.connect(Small(width=5))
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt", weights_only=True)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(20, 4)).astype("f4"))
    arguments = [str(tmp_path / f"{n}.ckpt") for n in "ab"] + ["--data", str(tmp_path / "x.npz")]
    arguments += ["--layers", "body.*", "--out", str(tmp_path / "o.png")]
    assert main([*arguments, "--class", f"{__name__}:Small"]) == 0
    assert np.load(tmp_path / "o.npz")["matrix"].shape == (3, 3)
    assert main(arguments) == 2


@pytest.mark.parametrize(
    "change, message",
    [
        (
            ["--layers", "layer.0"],
            "no layer of ViTModel matches 'layer.0'; did you mean 'layers.0'",
        ),
        (["--estimator", "unbiassed"], "did you mean 'unbiased'"),
        (["--data", "nowhere.npz"], "there is no such file"),
        (["--data", "probe.csv"], "the suffix must be one of"),
        (["--out", "map.jpg"], "the suffix must be"),
        (["--batch-size", "2"], "CKA needs four samples"),
    ],
)
def test_bad_input_is_one_line_and_status_two(models, tmp_path, capsys, change, message):
    good = {"--data": str(models / "data.npz"), "--layers": "layers.*", "--out": "map.png"}
    options = [part for pair in {**good, change[0]: change[1]}.items() for part in pair]
    assert main([str(models / "a"), str(models / "b"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_help_answers_at_once():
    start = time.perf_counter()
    command = [sys.executable, "-X", "importtime", "-m", "mlmodeldev.alignment", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--layers" in done.stdout and "torch" not in done.stderr
    assert time.perf_counter() - start < 5  # a second alone; the machine may be busy
