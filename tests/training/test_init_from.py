"""``training.init_from``: weights from a trial, an export, a file or transformers' folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.own_project import Project

FRONT = """
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F


class Wide(LightningModule):
    '''The first layer of Net under another name, and a head of its own.'''

    def __init__(self, classes: int, hidden: int = 4):
        super().__init__()
        self.body = nn.ModuleDict({"net": nn.Sequential(nn.Linear(8, hidden))})
        self.head = nn.Linear(hidden, 5)

    def forward(self, x):
        return self.head(torch.relu(self.body["net"](x)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


class Later(Wide):
    '''Has its layers only when it is trained.'''

    def __init__(self, classes: int):
        LightningModule.__init__(self)
        self.body = None

    def configure_model(self):
        if self.body is None:
            self.body = nn.ModuleDict({"net": nn.Sequential(nn.Linear(8, 4))})
            self.head = nn.Linear(4, 5)
"""

ARGUMENTS = (
    "data=points",
    "logger=csv",
    "callbacks=none",
    "training.monitor=val_loss",
    "training.mode=min",
    "training.max_epochs=1",
    "training.test=false",
    "artefacts.rehearsal=false",
)
NO_STEP = ("optimizer.lr=1e-30", "optimizer.weight_decay=0")
"""What is trained so stays what it began with."""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = Project.make(tmp_path_factory.mktemp("init") / "own")
    made.write("wide.py", FRONT)
    made.write("conf/model/wide.yaml", "_target_: wide.Wide\n")
    made.write("conf/model/later.yaml", "_target_: wide.Later\n")
    return made


def _train(root: str, overrides: list[str]) -> None:
    os.chdir(root)
    os.environ["MLMODELDEV_PROJECT"] = root
    sys.path.insert(0, root)
    import trainer
    from mlmodeldev.settings.composition import compose_settings

    torch.set_num_threads(1)
    trainer.train(compose_settings([*ARGUMENTS, *overrides]))


@pytest.fixture(scope="module")
def train(project):
    """Train a trial of the project in a fork; return its exit status, output and folder."""
    from tests.conftest import in_fork

    def run(name: str, *overrides: str) -> tuple[int, str, Path]:
        printed = project.root / f"{name}.txt"
        printed.unlink(missing_ok=True)
        given = [f"artefacts.trial={name}", "training.accelerator=cpu", *overrides]
        code = in_fork(printed, _train, str(project.root), given)
        return code, printed.read_text(), project.root / "runs" / "single" / name

    return run


@pytest.fixture(scope="module")
def parent(train) -> Path:
    code, output, folder = train("net", "model=net", "callbacks.export.enabled=true")
    assert code == 0, output
    return folder


@pytest.fixture(scope="module")
def drawn(train) -> dict[str, torch.Tensor]:
    """What the seed gives a Wide."""
    code, output, folder = train("drawn", "model=wide", *NO_STEP)
    assert code == 0, output
    return weights(folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    file = max((folder / "checkpoints").glob("step-*.ckpt"))
    return torch.load(file, weights_only=True)["state_dict"]


def lineage(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "trial.json").read_text())["parent"]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_trials_best_weights_and_on_from_its_own_checkpoint(train, parent, project) -> None:
    best = torch.load(parent / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    copy = project.root / "runs" / "single" / "copied"
    subprocess.run(["cp", "-r", str(parent), str(copy)], check=True)
    wanted = ("model=net", *NO_STEP, "training.init_from=copied", "training.seed=5")
    code, output, folder = train("child", *wanted, "callbacks.export.enabled=true")
    assert code == 0, output
    assert "- Initial weights: single/copied, best.ckpt " in (folder / "best/README.md").read_text()
    assert "init_from copied: 4 of 4 weights loaded" in output
    assert equal(weights(folder), best)
    assert lineage(folder)["weights"]["loaded"] == 4
    assert (lineage(folder)["how"], lineage(folder)["trial"]) == ("init_from", "copied")
    subprocess.run(["rm", "-r", str(copy)], check=True)
    code, output, folder = train("child", *wanted, "training.max_epochs=2")
    assert code == 0, output
    assert "init_from copied" not in output
    assert equal(weights(folder), best)


@pytest.mark.parametrize("model", ["wide", "later"])
def test_what_fits_another_class_under_another_prefix(train, parent, drawn, model) -> None:
    code, output, folder = train(
        *(f"from-{model}", f"model={model}", *NO_STEP, f"training.init_from={parent}/best"),
        f"artefacts.rehearsal={str(model == 'wide').lower()}",  # compares two models of one seed
    )
    assert code == 0, output
    assert "has other weights" not in output
    assert (
        "2 of 4 weights loaded, * as body.*; not in it, so drawn from the seed: head.weight,"
        " head.bias; without a place here: net.2.weight, net.2.bias"
    ) in output
    best = load_file(parent / "best" / "model.safetensors")
    ours = weights(folder)
    for part in ("weight", "bias"):
        assert torch.equal(ours[f"body.net.0.{part}"], best[f"net.0.{part}"])
        if model == "wide":
            assert torch.equal(ours[f"head.{part}"], drawn[f"head.{part}"])
    recorded = lineage(folder)["weights"]
    assert recorded["missing"] == ["head.weight", "head.bias"]
    assert recorded["prefix"] == ["", "body."]


@pytest.fixture(scope="module")
def file(project) -> Path:
    made = project.root / "some.safetensors"
    tensors = {"net.0.weight": torch.full((4, 8), 0.5), "net.0.bias": torch.zeros(3)}
    save_file({**tensors, "other": torch.zeros(2)}, made)
    return made


def test_another_shape_is_named_and_may_be_refused(train, file) -> None:
    wanted = ("model=net", *NO_STEP, f"training.init_from={file.name}")
    code, output, folder = train("shape", *wanted)
    assert code == 0, output
    assert "1 of 4 weights loaded" in output
    assert "of another shape, so drawn from the seed: net.0.bias (3, here 4)" in output
    assert "without a place here: other" in output
    assert torch.equal(weights(folder)["net.0.weight"], torch.full((4, 8), 0.5))
    assert lineage(folder)["weights"]["wrong_shape"] == {"net.0.bias": [[3], [4]]}
    tensors = {"net.0.weight": torch.zeros(4, 8)}
    save_file(tensors, file)
    _, output, _ = train("shape", *wanted)
    assert "this trial is done already; what it began with has changed since" in output
    code, output, folder = train("strict", *wanted, "training.init_strict=true")
    assert code == 2
    assert "training.init_strict=true" in output
    assert not folder.exists()


def test_none_that_fits_is_an_error(train, project) -> None:
    save_file({"mean": torch.zeros(2), "std": torch.ones(2)}, project.root / "none.safetensors")
    code, output, folder = train("none", "model=net", "training.init_from=none.safetensors")
    assert code == 2
    lines = output.strip().splitlines()
    assert lines[-1] == (
        "training.init_from=none.safetensors: none of its 2 weights fits Net: it has mean, std,"
        " the model net.0.weight, net.0.bias, net.2.weight and 1 more"
    )
    assert not folder.exists()


@pytest.mark.parametrize("name", ["missing.ckpt", "./nowhere", "models:/digits@best", "a/b/c"])
def test_what_can_be_nothing_is_refused_at_once(tmp_path, name) -> None:
    from mlmodeldev.errors import UsageError
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.training.trial_start import open_trial

    given = [f"artefacts.runs_dir={tmp_path}/runs", f"training.init_from='{name}'"]
    reason = "no such model is registered" if "@" in name else "no such file, folder or trial"
    with pytest.raises(UsageError, match=reason):
        open_trial(compose_settings(given))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["torn.ckpt", "empty.pt", "torn.safetensors", "damaged"])
def test_a_file_that_can_not_be_read_leaves_no_trial(tmp_path, name) -> None:
    from mlmodeldev.errors import UsageError
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.training.trial_start import open_trial

    runs = tmp_path / "runs"
    tensors = {"net.0.weight": torch.zeros(400, 8)}
    file = tmp_path / name
    if name == "damaged":  # a trial, its best weights
        file = runs / "single" / name / "checkpoints" / "best.ckpt"
        file.parent.mkdir(parents=True)
        (file.parents[1] / "trial.json").write_text('{"state": "done"}')
    save_file(tensors, file) if file.suffix == ".safetensors" else torch.save(tensors, file)
    whole = file.read_bytes()
    file.write_bytes(b"" if name.startswith("empty") else whole[: len(whole) // 2])
    given = name if name == "damaged" else file
    overrides = [f"artefacts.runs_dir={runs}", f"training.init_from={given}"]
    with pytest.raises(UsageError, match=f"training.init_from={given}: .*cannot be read"):
        open_trial(compose_settings(overrides))
    left = [folder.name for folder in runs.glob("single/*")]
    assert left == (["damaged"] if name == "damaged" else [])
    file.write_bytes(whole)
    assert open_trial(compose_settings(overrides))[0].is_dir()


@pytest.mark.parametrize("offline", [True, False])
def test_a_name_that_no_hub_can_answer_for_is_refused_at_once(
    tmp_path, monkeypatch, offline
) -> None:
    from huggingface_hub import constants

    from mlmodeldev.errors import UsageError
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.training.trial_start import open_trial

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    runs = tmp_path / "runs"
    (runs / "single" / "ab12cd34").mkdir(parents=True)
    (runs / "single" / "ab12cd34" / "trial.json").write_text("{}")
    given = [f"artefacts.runs_dir={runs}", "training.init_from=ab12cd35"]
    reason = "HF_HUB_OFFLINE is set" if offline else "can't be reached"
    with pytest.raises(UsageError, match=f"{reason}; did you mean 'ab12cd34'"):
        open_trial(compose_settings(given))
    assert [folder.name for folder in (runs / "single").iterdir()] == ["ab12cd34"]


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), ([1, 2], "holds a list")])
def test_a_file_without_weights_is_one_line(tmp_path, content, reason) -> None:
    from mlmodeldev.errors import UsageError
    from mlmodeldev.training.initial_weights import read_source

    file = tmp_path / "weights.pt"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UsageError, match=f"cannot be read: it .*{reason}"):
        read_source(str(file), tmp_path)


def test_a_registered_model_gives_its_weights(train, parent, project) -> None:
    from mlmodeldev.tracking.registry import promote
    from mlmodeldev.tracking.registry_folder import FolderRegistry

    registry = FolderRegistry(project.root / "runs" / ".registry")
    registry.add("points", parent / "best", {}, None)
    promote(registry, "points", 1)
    name = "training.init_from=models:/points@champion"
    code, output, folder = train("from-registered", "model=net", *NO_STEP, name)
    assert code == 0, output
    assert equal(weights(folder), load_file(parent / "best" / "model.safetensors"))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path) -> None:
    from mlmodeldev.errors import UsageError
    from mlmodeldev.training.initial_weights import read_source

    torch.save({"state_dict": {"a": torch.zeros(1)}, "code": os.system}, tmp_path / "bad.ckpt")
    with pytest.raises(UsageError, match="cannot be read"):
        read_source(str(tmp_path / "bad.ckpt"), tmp_path)


@pytest.mark.parametrize("cached", [False, True])
def test_a_model_of_transformers_with_its_head(tmp_path, monkeypatch, cached) -> None:
    """From a folder, or by its Hub name from the local cache; there is no network here."""
    from huggingface_hub import constants
    from torch import nn
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    from mlmodeldev.training.initial_weights import read_source
    from mlmodeldev.training.weights_fit import fit_weights

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 11}
    config = BertConfig(**sizes, intermediate_size=8, num_labels=2)
    place, name = tmp_path / "bert", str(tmp_path / "bert")
    if cached:
        repository, name = tmp_path / "hub" / "models--lab--bert", "lab/bert"
        place = repository / "snapshots" / "c0ffee"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("c0ffee")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    BertForSequenceClassification(config).save_pretrained(place)
    module = nn.ModuleDict({"encoder": BertModel(config), "classifier": nn.Linear(8, 2)})
    before = torch.random.get_rng_state()
    source = read_source(name, tmp_path / "runs")
    assert torch.equal(torch.random.get_rng_state(), before)
    fit = fit_weights(module.state_dict(), source.weights)
    stored = load_file(place / "model.safetensors")
    expected = {n.replace("bert.", "encoder.", 1): v for n, v in stored.items() if "bert." in n}
    assert fit.prefix == ("bert.", "encoder.")
    assert equal(fit.weights, expected)
    assert fit.missing == ["classifier.weight", "classifier.bias"]
    assert (source.origin.get("revision") == "c0ffee") is cached


def test_the_first_weights_are_part_of_the_identity() -> None:
    from mlmodeldev.settings.identity import identity

    points = [{}, {"training.init_from": "a"}, {"training.init_from": "b"}]
    points += [{"training.continue_from": "a"}, {"training.continue_from": "b"}]
    assert len({identity(point) for point in points}) == 5
