"""Any module's export loads back, in this process and in one that knows nothing of the trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn

import mlmodeldev
from mlmodeldev.callbacks.export_files import write_card, write_config, write_weights
from mlmodeldev.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests.training.test_load"


class Tied(LightningModule):
    """Shared weights, buffers of both kinds, and a number format per part."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.inner = nn.Embedding(5, size)
        self.outer = nn.Linear(size, 5, bias=False)
        self.outer.weight = self.inner.weight
        self.again = self.outer
        self.norm = nn.BatchNorm1d(size)
        self.register_buffer("seen", torch.zeros(0))
        self.register_buffer("late", None)
        self.register_buffer("scratch", torch.arange(size).float(), persistent=False)

    def forward(self, x: Any) -> Any:
        return self.outer(self.norm(self.inner(x)) + self.scratch)


class Formats(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Parameter(torch.ones(2, 2))
        self.long_ = nn.Parameter(torch.ones(3))
        self.wave = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        self.turned = nn.Parameter(torch.ones(2, 3))
        self.register_buffer("flags", torch.zeros(2, dtype=torch.bool))


class Lazy(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.LazyLinear(2), nn.LazyLinear(2)

    def forward(self, x: Any) -> Any:
        return self.used(x)


class Measured(LightningModule):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        from torchmetrics.classification import MulticlassAccuracy

        self.net = nn.Linear(2, classes)
        self.accuracy = MulticlassAccuracy(classes)
        self.accuracy.persistent(True)


class Extra(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def get_extra_state(self) -> Any:
        return {"count": self.count}

    def set_extra_state(self, state: Any) -> None:
        self.count = state["count"]


class Built(LightningModule):
    """Layers made in Lightning's own hook, and from arguments of all kinds."""

    def __init__(self, net: nn.Module, words: dict[int, str], weights: Any, table: Any) -> None:
        super().__init__()
        self.net, self.words, self.table = net, words, table
        self.register_buffer("weights", weights, persistent=False)

    def configure_model(self) -> None:
        if not hasattr(self, "head"):
            self.head = nn.Linear(4, len(self.words))

    def forward(self, x: Any) -> Any:
        return self.head(self.net(x))


class Dots(LightningModule):
    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(size, 2, bias=False)

    def forward(self, x: Any) -> Any:
        return self.layer(x)


class Sums(LightningModule):
    """Has predict_step, which takes a mapping and gives one."""

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        a = batch["a"].sum(1)
        parts = torch.stack([a, batch["b"]], 1)
        return {"sum": a + batch["b"], "parts": parts, "text": "whole"}


def exported(folder: Path, module: LightningModule, target: str = "", **arguments: Any) -> Path:
    """Write a module as a trial does."""
    folder.mkdir(exist_ok=True)
    target = target or f"{HERE}.{type(module).__name__}"
    write_weights(module, folder)
    write_config(target, arguments, folder)
    state = {"settings": {"model": {"_target_": target}}, "model_arguments": {}, "data": {}}
    (folder / "training_state.json").write_text(json.dumps(state))
    return folder


def assert_same_state(ours: nn.Module, theirs: nn.Module) -> None:
    one, other = ours.state_dict(), theirs.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        assert torch.equal(value, other[name]), name


def test_shared_weights_and_buffers(tmp_path: Path) -> None:
    module = Tied(4)
    module.seen, module.late = torch.tensor([1.0, 2.0]), torch.tensor(7)
    module(torch.tensor([[1], [2]])[:, 0])  # moves the running mean
    loaded = mlmodeldev.load(exported(tmp_path / "best", module, size=4))
    assert_same_state(loaded, module)
    assert loaded.inner.weight is loaded.outer.weight
    assert not loaded.training
    x = torch.tensor([0, 3])
    assert torch.equal(loaded(x), module.eval()(x))
    size = (tmp_path / "best" / "model.safetensors").stat().st_size
    assert size < 2 * sum(v.nbytes for v in module.state_dict().values()) + 1200


def test_number_formats(tmp_path: Path) -> None:
    module = Formats()
    module.short.data = torch.tensor([[0.1, 2], [3, 4]], dtype=torch.bfloat16)
    module.long_.data = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    module.wave.data *= 2j
    module.turned.data = torch.rand(3, 2).T
    module.flags[0] = True
    assert_same_state(mlmodeldev.load(exported(tmp_path / "best", module)), module)


def test_a_lazy_layer_that_ran_and_one_that_did_not(tmp_path: Path) -> None:
    module = Lazy()
    x = torch.rand(2, 3)
    answer = module(x)
    assert torch.equal(mlmodeldev.load(exported(tmp_path / "best", module))(x), answer)


def test_a_metrics_state(tmp_path: Path) -> None:
    module = Measured()
    module.accuracy.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
    loaded: Any = mlmodeldev.load(exported(tmp_path / "best", module))
    assert loaded.accuracy.compute() == module.accuracy.compute()


def test_state_that_is_no_tensor(tmp_path: Path) -> None:
    module = Extra()
    module.count = 3
    loaded: Any = mlmodeldev.load(exported(tmp_path / "best", module))
    assert loaded.count == 3


def test_arguments_come_back_as_they_were(tmp_path: Path) -> None:
    net = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 4}
    given = {
        "words": {1: "one", 2: "two"},
        "weights": torch.tensor([0.5, 2.0]),
        "table": np.arange(3),
    }
    module = Built(nn.Linear(2, 4), **given)
    module.configure_model()
    folder = exported(tmp_path / "best", module, net=net, **given)
    loaded: Any = mlmodeldev.load(folder)
    x = torch.rand(3, 2)
    assert torch.equal(loaded(x), module(x))
    assert loaded.words == given["words"]
    assert torch.equal(loaded.weights, given["weights"])
    assert isinstance(loaded.table, np.ndarray)
    np.testing.assert_array_equal(loaded.table, given["table"])


def test_an_argument_that_can_not_be_stored_must_be_given(tmp_path: Path) -> None:
    net, words = nn.Linear(2, 4), {1: "one"}
    module = Built(net, words, torch.ones(1), None)
    module.configure_model()
    rest = {"words": words, "weights": torch.ones(1), "table": None}
    folder = exported(tmp_path / "best", module, net=net, **rest)
    with pytest.raises(UsageError, match=r"the argument net \(a Linear\) could not be stored"):
        mlmodeldev.load(folder)
    loaded: Any = mlmodeldev.load(folder, net=nn.Linear(2, 4))
    x = torch.rand(3, 2)
    assert torch.equal(loaded(x), module(x))


def test_an_export_of_an_earlier_version(tmp_path: Path) -> None:
    """It has no config.json: class and arguments are in the training state."""
    from safetensors.torch import save_model

    module = Tied(4)
    module.seen = torch.tensor([1.0])
    folder = tmp_path / "best"
    folder.mkdir()
    save_model(module, str(folder / "model.safetensors"))
    target = {"_target_": f"{HERE}.Tied", "size": 4}
    state = {"settings": {"model": target}, "model_arguments": {"size": 4}, "data": {}}
    (folder / "training_state.json").write_text(json.dumps(state))
    assert_same_state(mlmodeldev.load(folder), module)
    assert_same_state(mlmodeldev.load(tmp_path), module)  # the trial's folder: its best


# --- refused


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("gone.Net", r"its model is gone.Net, and there is no module gone \(.*gone\.py\)"),
        ("tests.gone.Net", r"there is no module tests.gone \(.*tests/gone\.py\)"),
        (f"{HERE}.Teid", r"its model is .*, and .*test_load\.py has no Teid; did you mean 'Tied'"),
    ],
)
def test_a_missing_class_is_one_line(tmp_path: Path, target: str, line: str) -> None:
    folder = exported(tmp_path / "best", Tied(), target)
    with pytest.raises(UsageError, match=line) as refused:
        mlmodeldev.load(folder)
    assert "\n" not in str(refused.value)


def test_other_arguments_and_other_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no export here"):
        mlmodeldev.load(tmp_path)
    with pytest.raises(UsageError, match="Tied refuses its arguments"):
        mlmodeldev.load(exported(tmp_path / "a", Tied(), width=4))
    with pytest.raises(UsageError, match=r"model\.safetensors: .*size mismatch") as refused:
        mlmodeldev.load(exported(tmp_path / "b", Tied(3), size=4))
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match=r"does not fit Formats.*was its code changed"):
        mlmodeldev.load(exported(tmp_path / "c", Tied(), f"{HERE}.Formats"))
    (tmp_path / "c" / "model.safetensors").write_bytes(b"\0" * 50)
    with pytest.raises(UsageError, match="can't be loaded"):
        mlmodeldev.load(tmp_path / "c")


# --- a fresh process

MINE = """
import torch
from pytorch_lightning import LightningModule

class Net(LightningModule):
    def __init__(self, size=2):
        super().__init__()
        self.layer = torch.nn.Linear(size, size)
    def forward(self, x):
        return self.layer(x)
"""
ASK = """
import sys, torch, mlmodeldev
model = mlmodeldev.load(sys.argv[1])
print(type(model).__module__, model.training, model(torch.ones(3)).tolist())
"""


@pytest.mark.parametrize("inside", [True, False])
def test_in_a_fresh_process_from_any_folder(tmp_path: Path, inside: bool) -> None:
    project = tmp_path / "project"
    (project / "conf").mkdir(parents=True)
    (project / "conf" / "config.yaml").touch()
    (project / "mine").mkdir()
    (project / "mine" / "net.py").write_text(MINE)
    namespace: dict[str, Any] = {}
    exec(MINE, namespace)
    module = namespace["Net"](3)
    place = (project if inside else tmp_path / "scratch") / "runs" / "single" / "a"
    place.mkdir(parents=True)
    exported(place / "best", module, "mine.net.Net", size=3)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ASK, str(place / "best")]

    def ask() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd="/", env=environment, capture_output=True, text=True, check=False
        )

    if not inside:
        assert ask().stderr.splitlines()[-1].startswith("mlmodeldev.errors.UsageError: ")
        environment["MLMODELDEV_PROJECT"] = str(project)
    done = ask()
    assert done.stdout.strip() == f"mine.net False {module(torch.ones(3)).tolist()}", done.stderr


# --- the card


def test_the_card_says_where_a_model_comes_from(tmp_path: Path) -> None:
    import yaml

    settings = {"_target_": "model.Net"}, {"_target_": "datamodule.Mine"}
    state = {
        "settings": {
            "model": settings[0],
            "data": settings[1],
            "overrides": {"optimizer.lr": 0.1, "artefacts.runs_dir": "/scratch/somebody"},
        },
        "metric": {"name": "val/mse", "value": 0.125, "epoch": 3},
        "epoch": 4,
        "step": 40,
        "seed": 7,
    }
    record = {"id": "ab12", "sweep": "s", "sha": "1f0c", "dirty": True}
    record["data"] = {"inputs": {"train.csv": "9a0d3c" * 8}}
    write_card(tmp_path, state, record)
    text = (tmp_path / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "mlmodeldev"
    for part in ("# Net\n", "datamodule.Mine", "train.csv 9a0d3c", "val/mse 0.125", "epoch 3"):
        assert part in body
    for part in ("1f0c (with changes", "s/ab12", "optimizer.lr: 0.1", "4 epochs, 40 steps, seed 7"):
        assert part in body
    assert "/scratch/somebody" not in text
    write_card(tmp_path, {}, {})
    assert (tmp_path / "README.md").read_text() == text, "a model's own card is left alone"
