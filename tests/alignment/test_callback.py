"""The callback on small LightningModules: same run with and without it, right numbers, resume."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from mlmodeldev.alignment import results
from mlmodeldev.alignment.callback import CKACallback, Comparison
from mlmodeldev.alignment.metric import CKA
from tests.alignment import oracles
from tests.alignment.towers import COMPARE, Towers, fit, loaders

warnings.filterwarnings("ignore", module="pytorch_lightning")


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    """Pictures are tested elsewhere, and drawn in one test here: they take most of the time."""
    monkeypatch.setattr(results, "picture", lambda result: result)
    monkeypatch.setattr(results, "draw_drift", lambda *args, **kwargs: None)
    monkeypatch.setattr(results, "save_figure", lambda figure, path: write(path))


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture")


def hooks(module):
    return sum(len(m._forward_hooks) for m in module.modules())


def matrix(folder, name, epoch):
    with np.load(folder / "cka" / name / f"epoch-{epoch:04d}.npz") as saved:
        return dict(saved)


def test_the_run_is_the_same_bit_for_bit(tmp_path):
    plain, _ = fit(tmp_path)
    watched, trainer = fit(tmp_path, CKACallback(COMPARE, tmp_path))
    assert watched.losses == plain.losses
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert list(plain.state_dict()) == list(watched.state_dict())
    assert plain.sizes == watched.sizes, "no extra forward of the live model"
    assert hooks(watched) == 0
    assert watched.training == plain.training
    assert not watched.text[0].bias.requires_grad and watched.image[0].bias.requires_grad
    assert len(trainer.optimizers[0].param_groups[0]["params"]) == 10 - 1


def test_files_and_scalars(tmp_path, monkeypatch):
    monkeypatch.undo()
    _, trainer = fit(tmp_path, CKACallback(COMPARE, tmp_path))
    metrics = trainer.callback_metrics
    for name in COMPARE:
        assert (tmp_path / "cka" / f"{name}.png").stat().st_size > 500
        assert (tmp_path / "cka" / name / "epoch-0003.png").exists()
    assert (tmp_path / "cka" / "drift" / "training.png").exists()
    saved = matrix(tmp_path, "towers", 3)
    assert list(saved["rows"]) == ["image.0", "image.1", "image.2"]
    assert list(saved["columns"]) == ["text.0", "text.1", "text.2"]
    assert saved["matrix"].shape == (3, 3) and saved["matrix"].dtype == np.float64
    assert saved["samples"] == 96 and saved["batches"] == 5 and saved["estimator"] == "unbiased"
    diagonal = np.diagonal(saved["matrix"])
    assert metrics["cka/towers/mean_diagonal"].item() == pytest.approx(diagonal.mean(), abs=1e-6)
    assert metrics["cka/mean_diagonal"] == metrics["cka/towers/mean_diagonal"]
    assert metrics["cka/image.0~text.0"].item() == pytest.approx(diagonal[0], abs=1e-6)
    assert 0 < metrics["cka/drift/text.2"] < 1
    assert "cka/inside/mean_off_diagonal" in metrics and "cka/inside/mean_diagonal" not in metrics
    assert not (tmp_path / "cka" / "steps" / "epoch-0001.npz").exists()
    assert (tmp_path / "cka" / "steps" / "epoch-0002.npz").exists()
    assert not list((tmp_path / "cka").rglob(".*")), "no temporary files are left"


class Still(Towers):
    """Without randomness in validation, to be run again by hand."""

    def validation_step(self, batch, batch_idx):
        a, b = self(batch)
        self.log("val/loss", (a - b).square().mean())


def by_hand(module, first, batches):
    metric = CKA(["image.0", "image.2"])
    for a, _ in batches:
        sides = []
        for model in (module, first):
            hidden = model.image[0](a)
            sides.append({"image.0": hidden.clone(), "image.2": model.image[2](hidden.relu())})
        metric.update(*sides)
    return metric.compute()


def test_the_numbers_are_those_of_the_models_run_by_hand(tmp_path):
    compare = {"drift": Comparison(["image.0", "image.2"], against="start")}
    callback = CKACallback(compare, tmp_path, max_batches=3)
    module = Still()
    first = copy.deepcopy(module).eval()
    fit(tmp_path, callback, module=module)
    batches = list(loaders()[1])[:3]
    with torch.no_grad():
        want = by_hand(module.eval(), first, batches)
    assert np.allclose(matrix(tmp_path, "drift", 3)["matrix"], want.numpy(), atol=1e-9)


def test_measuring_an_unchanged_model_against_its_start_gives_one(tmp_path):
    module = Towers()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
    module.text[1] = nn.Identity()
    fit(tmp_path, CKACallback(COMPARE, tmp_path), module=module)
    diagonal = np.diagonal(matrix(tmp_path, "drift", 3)["matrix"])
    assert np.allclose(diagonal, 1, atol=1e-12), "the copy sees the same noise as the model"


def test_every_n_epochs_and_the_sanity_check(tmp_path):
    fit(tmp_path, CKACallback(COMPARE, tmp_path, every_n_epochs=2, max_batches=2), epochs=5)
    names = sorted(p.name for p in (tmp_path / "cka" / "towers").glob("*.npz"))
    assert names == ["epoch-0002.npz", "epoch-0004.npz"]
    assert matrix(tmp_path, "towers", 4)["samples"] == 40


class Saver(pl.Callback):
    """Saves after validation, as a checkpoint callback does."""

    def __init__(self, folder):
        self.folder = folder

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


def test_resume_keeps_the_start_the_previous_epoch_and_the_history(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    fit(whole, CKACallback(COMPARE, whole), epochs=1)
    start = load_file(whole / "cka" / "start.safetensors")
    fit(broken, CKACallback(COMPARE, broken), Saver(broken), epochs=2)
    again = CKACallback(COMPARE, broken)
    fit(broken, again, epochs=3, ckpt_path=broken / "1.ckpt")
    kept = load_file(broken / "cka" / "start.safetensors")
    assert all(torch.equal(start[name], kept[name]) for name in start)
    assert again._history["drift"]["epochs"] == [1, 2, 3]
    saved = torch.load(broken / "1.ckpt", weights_only=True)
    state = next(v for k, v in saved["callbacks"].items() if "CKACallback" in k)
    live = saved["state_dict"]
    assert all(torch.equal(state["previous"][name], live[name]) for name in live)


def test_a_fresh_start_in_an_old_folder_replaces_the_old_start(tmp_path):
    fit(tmp_path, CKACallback(COMPARE, tmp_path), epochs=1)
    torch.save({}, tmp_path / "unrelated")
    module = Towers()
    with torch.no_grad():
        module.image[0].weight.fill_(0.25)
    fit(tmp_path, CKACallback(COMPARE, tmp_path), epochs=1, module=module)
    assert (load_file(tmp_path / "cka" / "start.safetensors")["image.0.weight"] == 0.25).all()


def test_a_resume_without_the_start_file_says_so_and_takes_the_weights_as_built(tmp_path):
    fit(tmp_path, CKACallback({"t": COMPARE["towers"]}, tmp_path), Saver(tmp_path), epochs=2)
    with pytest.warns(UserWarning, match="start = the weights as built"):
        fit(tmp_path, CKACallback(COMPARE, tmp_path), epochs=3, ckpt_path=tmp_path / "1.ckpt")
    pl.seed_everything(7)
    built = Towers().state_dict()
    kept = load_file(tmp_path / "cka" / "start.safetensors")
    assert all(torch.equal(built[name], kept[name]) for name in kept)


@pytest.mark.parametrize("error", [KeyboardInterrupt])
def test_hooks_are_gone_after_an_interrupt(tmp_path, error):
    module = Towers(fail_at=1)
    with pytest.raises((SystemExit, error)):
        fit(tmp_path, CKACallback(COMPARE, tmp_path), module=module)
    assert hooks(module) == 0
    assert (tmp_path / "cka" / "towers" / "epoch-0001.npz").exists()


def test_against_checkpoints_of_the_same_model(tmp_path):
    pl.seed_everything(7)
    first = Still()
    torch.save({"state_dict": first.state_dict()}, tmp_path / "first.ckpt")
    compare = {
        "file": {"a": "image.*", "against": str(tmp_path / "first.ckpt")},
        "start": {"a": "image.*", "against": "start"},
    }
    fit(tmp_path, CKACallback(compare, tmp_path), epochs=2)
    got, want = (matrix(tmp_path, name, 2)["matrix"] for name in ("file", "start"))
    assert np.allclose(got, want, atol=1e-12)


def test_against_a_transformers_folder(tmp_path):
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(num_hidden_layers=2, image_size=8, patch_size=4, num_channels=1, **sizes)
    ViTModel(config).save_pretrained(tmp_path / "hub")

    class Vision(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.image = ViTModel(config, add_pooling_layer=False)

        def training_step(self, batch, batch_idx):
            return self.image(batch["image"]).last_hidden_state.square().mean()

        def validation_step(self, batch, batch_idx):
            self.image(batch["image"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    data = [{"image": x} for x in torch.randn(24, 1, 8, 8)]
    against = {"against": str(tmp_path / "hub"), "inputs": {"pixel_values": "image"}}
    compare = {"hub": {"a": "image.layers.*", "b": "layers.*", **against}}
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[CKACallback(compare, tmp_path)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Vision()
    trainer.fit(module, DataLoader(data, 8), DataLoader(data, 8))
    measured = matrix(tmp_path, "hub", 1)["matrix"]
    there = ViTModel.from_pretrained(tmp_path / "hub").eval()
    here = module.image.eval()
    batches = torch.stack([one["image"] for one in data]).split(8)
    with torch.no_grad():  # hidden_states[0] is what goes into the first layer
        pairs = [
            [model(batch, output_hidden_states=True).hidden_states[1:] for model in (here, there)]
            for batch in batches
        ]
    for i, j in np.ndindex(2, 2):
        layers = [(ours[i].mean(1).numpy(), theirs[j].mean(1).numpy()) for ours, theirs in pairs]
        want = oracles.cka(layers)  # of the mean over tokens
        assert measured[i, j] == pytest.approx(want, abs=1e-6)
    assert "cka/hub/image.layers.0~layers.0" in trainer.callback_metrics


def test_bf16_validation_measures_in_float32(tmp_path):
    fit(tmp_path, CKACallback(COMPARE, tmp_path), precision="bf16-mixed", epochs=2)
    drift = np.diagonal(matrix(tmp_path, "drift", 2)["matrix"])
    assert ((drift > 0) & (drift <= 1 + 1e-9)).all()


def test_compiled_layers_are_seen(tmp_path):
    module = Still()
    module.image = torch.compile(module.image, backend="eager")
    compare = {"towers": {"a": "image._orig_mod.*", "b": "text.*"}}
    fit(tmp_path, CKACallback(compare, tmp_path, every_n_epochs=2), module=module, epochs=2)
    assert np.isfinite(matrix(tmp_path, "towers", 2)["matrix"]).all()


def test_outside_a_fit_and_with_several_validation_loaders(tmp_path):
    callback = CKACallback({"towers": COMPARE["towers"]}, tmp_path)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False
    )
    trainer.validate(TwoLoaders(), [loaders()[1], loaders()[1]], verbose=False)
    assert matrix(tmp_path, "towers", 1)["samples"] == 96


class TwoLoaders(Still):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self(batch)


class PictureLogger(pl.loggers.CSVLogger):
    """A logger that takes pictures and tables as W&B's does, and remembers their keys."""

    def __init__(self, folder):
        super().__init__(folder)
        self.pictures, self.tables = [], []

    def log_image(self, key, images, step=None, **kwargs):
        self.pictures.append((key, images, kwargs))

    def log_table(self, key, columns=None, data=None, **kwargs):
        self.tables.append((key, columns, data))


class BrokenLogger(PictureLogger):
    def log_image(self, key, images, step=None, **kwargs):
        raise ConnectionError("tracker is away")


def test_loggers_get_one_key_per_comparison_and_cannot_stop_the_run(tmp_path):
    good, bad = PictureLogger(tmp_path / "good"), BrokenLogger(tmp_path / "bad")
    plain = pl.loggers.CSVLogger(tmp_path / "plain")
    callback = CKACallback({"towers": COMPARE["towers"]}, tmp_path)
    with pytest.warns(UserWarning, match="took no picture: tracker is away"):
        fit(tmp_path, callback, epochs=2, logger=[good, bad, plain])
    assert {key for key, *_ in good.pictures} == {"cka/towers/heatmap"}
    assert len(good.pictures) == 2
    key, columns, data = good.tables[-1]
    assert key == "cka/towers/matrix" and columns[0] == "layer" and len(data) == 3
    assert (
        "cka/towers/mean_diagonal"
        in (tmp_path / "plain").rglob("metrics.csv").__next__().read_text()
    )


class NeedsTrainer(Towers):
    def validation_step(self, batch, batch_idx):
        self(batch)
        return self.trainer.global_step


def test_a_step_may_read_the_trainer(tmp_path):
    compare = {"drift": {"a": "image.*", "against": "start"}}
    fit(tmp_path, CKACallback(compare, tmp_path), module=NeedsTrainer(), epochs=1)
    assert matrix(tmp_path, "drift", 1)["matrix"].shape == (3, 3)
