"""Data and model from their settings: facts filled in, weights from the seed, errors in a line."""

from __future__ import annotations

import sys

import pytest
import torch

from mlmodeldev.data.info import data_info
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.schema import Settings
from mlmodeldev.training import build
from mlmodeldev.training.ranks import World

MINE = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from mlmodeldev.data.module import ExactDataModule

class Data(ExactDataModule):
    log = []
    def __init__(self, size=4):
        super().__init__()
        self.size = size
    def prepare_data(self): self.log.append("prepare")
    def setup(self, stage=None): self.log.append(f"setup {stage} {self.seed} {self.shard}")
    @property
    def info(self): return {"classes": 3, "vocabulary": 99, "unknown": 1}

class DrawnAtOnce(LightningDataModule):
    def __init__(self):
        super().__init__()
        self.values = torch.randn(5)

class Net(LightningModule):
    def __init__(self, width: int, classes: int = 2, vocabulary: int = 5):
        super().__init__()
        self.made_with = (width, classes, vocabulary)
        self.layer = torch.nn.Linear(width, classes)

class Earlier(ExactDataModule):
    label_names = ["a", "b"]
    def setup(self, stage=None): ...
    @property
    def structure(self): return {"classes": 3}
    def card(self): return {"image": {"size": 8}}

class Unlike(LightningDataModule):
    def info(self): return "a method of the researcher's own"

class Broken(LightningModule):
    def __init__(self):
        super().__init__()
        int("a defect of the researcher's own")

def no_class(): ...
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "minefile.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("minefile", None)


AT_ONCE = {"_target_": "minefile.DrawnAtOnce"}


def settings(model: dict | None = None, data: dict | None = None, seed: int = 0) -> Settings:
    return Settings.model_validate(
        {
            "model": {"_target_": "minefile.Net", "width": 6} if model is None else model,
            "data": {"_target_": "minefile.Data"} if data is None else data,
            "training": {"seed": seed},
        }
    )


def test_data_are_prepared_and_set_up_once_with_what_makes_no_other_data(mine):
    made = build.datamodule(settings(seed=5), World())
    assert made.log == ["prepare", "setup fit 5 Shard(rank=0, size=1)"]
    assert made.processing.batch_size == 32


def test_what_data_draw_as_they_are_made_is_the_seeds(mine):
    """Not what the process drew before: an attempt that goes on would train on other data."""
    drawn = []
    for seed in (0, 0, 1):
        torch.rand(3)
        drawn.append(build.datamodule(settings(data=AT_ONCE, seed=seed), World()).values)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_only_the_first_process_prepares(mine, monkeypatch):
    monkeypatch.setattr(
        World, "on_rank_zero", lambda self, decide, **_: decide() if self.is_rank_zero else None
    )
    made = build.datamodule(settings(), World(rank=1, size=2))
    assert made.log == ["setup fit 0 Shard(rank=1, size=2)"]


def test_facts_of_the_data_fill_arguments_and_settings_have_the_last_word(mine):
    data = build.datamodule(settings(), World())
    assert build.model(settings(), data).made_with == (6, 3, 99)
    chosen = settings({"_target_": "minefile.Net", "width": 6, "classes": 8})
    assert build.model(chosen, data).made_with == (6, 8, 99)
    assert build.model_arguments(chosen, data) == {"width": 6, "classes": 8, "vocabulary": 99}


def test_weights_depend_on_the_seed_and_on_nothing_drawn_before(mine):
    data = build.datamodule(settings(), World())
    first = build.model(settings(), data).layer.weight
    torch.rand(17)
    assert build.model(settings(), data).layer.weight.equal(first)
    assert not build.model(settings(seed=1), data).layer.weight.equal(first)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("minefile.Nett", "model._target_=minefile.Nett"),
        ("nofile.Net", "model._target_=nofile.Net"),
        ("minefile.no_class", "model._target_=minefile.no_class"),
        ("torch.Size", "must be a LightningModule"),
    ],
)
def test_a_target_that_is_no_model_is_reported(mine, target, message):
    data = build.datamodule(settings(), World())
    with pytest.raises(UsageError) as error:
        build.model(settings({"_target_": target}), data)
    assert message in str(error.value)


def test_data_of_another_kind_are_reported(mine):
    with pytest.raises(UsageError, match="must be a LightningDataModule"):
        build.datamodule(settings(data={"_target_": "minefile.Net", "width": 1}), World())


def test_arguments_that_do_not_fit_are_reported_in_one_line(mine):
    data = build.datamodule(settings(), World())
    with pytest.raises(UsageError, match=r"^model: .*widht") as error:
        build.model(settings({"_target_": "minefile.Net", "width": 1, "widht": 2}), data)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"^data: .*sise"):
        build.datamodule(settings(data={"_target_": "minefile.Data", "sise": 1}), World())


def test_facts_of_data_that_were_written_for_an_earlier_version(mine):
    data = build.datamodule(settings(data={"_target_": "minefile.Earlier"}), World())
    assert data_info(data) == {"labels": ["a", "b"], "classes": 3, "image": {"size": 8}}
    assert build.model(settings(), data).made_with == (6, 3, 5)


def test_an_info_of_another_meaning_is_left_alone(mine):
    data = build.datamodule(settings(data={"_target_": "minefile.Unlike"}), World())
    assert data_info(data) == {}
    assert build.model(settings(), data).made_with == (6, 2, 5)


def test_a_defect_inside_of_the_class_keeps_its_traceback(mine):
    data = build.datamodule(settings(), World())
    with pytest.raises(ValueError, match="a defect of the researcher's own") as error:
        build.model(settings({"_target_": "minefile.Broken"}), data)
    assert error.traceback[-1].path.name == "minefile.py"


def test_the_default_model_takes_its_sizes_from_the_digits(data_dir):
    chosen = compose_settings(
        [f"artefacts.data_dir={data_dir}", "model.hidden_size=8", "model.num_layers=1"]
    )
    data = build.datamodule(chosen, World())
    arguments = build.model_arguments(chosen, data)
    assert (arguments["num_classes"], arguments["image_size"], arguments["channels"]) == (10, 8, 1)
    made = build.model(chosen, data)
    assert made.text.config.vocab_size == len(data.tokenizer)
    assert made.image.config.hidden_size == 8


OWN = """
import torch
from lightning.pytorch import LightningModule

class Net(LightningModule):
    def __init__(self, classes: int, width: int, learning_rate=0.1, body=None, heads=()):
        super().__init__()
        self.body, self.heads, self.made_with = body, heads, (classes, width)
        self.layer = torch.nn.Linear(width, classes)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)
"""


@pytest.fixture
def own(mine, tmp_path):
    (tmp_path / "ownfile.py").write_text(OWN)
    yield {"_target_": "ownfile.Net", "width": 4}
    sys.modules.pop("ownfile", None)


def test_objects_inside_of_the_arguments_are_made_and_the_record_stays_plain(own):
    linear = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    chosen = settings({**own, "body": linear, "heads": [linear, {**linear, "_partial_": True}]})
    data = build.datamodule(settings(), World())
    net = build.model(chosen, data)
    assert net.body.weight.shape == (3, 2)
    assert net.heads[0].out_features == net.heads[1]().out_features == 3
    assert build.model_arguments(chosen, data)["body"] == linear
    again = build.model(chosen, data)  # what is inside is drawn from the seed too
    assert torch.equal(again.body.weight, net.body.weight)


def test_arguments_by_place(own):
    data = build.datamodule(settings(), World())
    net = build.model(settings({"_target_": "ownfile.Net", "_args_": [5], "width": 4}), data)
    assert net.made_with == (5, 4)


def test_an_argument_that_nobody_gives_is_named_with_what_the_data_give(own):
    data = build.datamodule(settings(), World())
    with pytest.raises(UsageError) as error:
        build.model(settings({"_target_": "ownfile.Net"}), data)
    assert str(error.value) == (
        "model.width: is missing; ownfile.Net has no default for it, and minefile.Data gives"
        " classes, vocabulary, unknown"
    )


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            {"optimizer.lr": 0.3},
            "optimizer.lr=0.3: ownfile.Net makes its own optimizer; set mod",
        ),
        ({"optimizer": "sgd"}, "optimizer=sgd: ownfile.Net makes its own optimizer; it has no arg"),
        (
            {"optimizer.momentum": 0.3},
            "optimizer.momentum=0.3: ownfile.Net makes its own opti",
        ),
        ({"training.max_epochs": 3}, None),
    ],
)
def test_settings_of_an_optimizer_that_the_model_makes_itself(own, overrides, line):
    data = build.datamodule(settings(), World())
    chosen = settings(own).model_copy(update={"overrides": overrides})
    if line is None:
        assert build.model(chosen, data)
        return
    with pytest.raises(UsageError) as error:
        build.model(chosen, data)
    assert str(error.value).startswith(line)
