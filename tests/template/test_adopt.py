"""``mlmodeldev adopt``: what it writes into repositories of several layouts, and that it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlmodeldev.project import put_on_path
from mlmodeldev.template import adopt, adopt_plan
from mlmodeldev.template.adopt_conf import Group, OwnYaml, own_yaml
from mlmodeldev.template.adopt_find import find_classes
from mlmodeldev.template.adopt_rehearsal import choose_monitor
from mlmodeldev.template.adopt_sweep import parameters, sweep_text

pytestmark = pytest.mark.project

NET = """
import torch
from pytorch_lightning import LightningModule


class Head(torch.nn.Module):
    def __init__(self, size: int, hidden: int = 8):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(size, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1)
        )

    def forward(self, x):
        return self.layers(x)


class Base(LightningModule):
    def training_step(self, batch, index):
        return self._loss(batch)

    def validation_step(self, batch, index):
        self.log("val_loss", self._loss(batch))

    def _loss(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.activation(self.net(x)), y)


class LitNet(Base):
    def __init__(
        self,
        net: torch.nn.Module,
        lr: float = 0.01,
        hidden_size=4,
        dropout=0.1,
        activation=torch.nn.Identity(),
        init=torch.nn.init.zeros_,
        pick=lambda x: x,
        kernel=(3, 3),
        names: dict = {"a": 1.5},
        dtype=torch.float32,
        tag: str | None = None,
    ):
        super().__init__()
        self.net, self.lr, self.activation = net, lr, activation

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)
"""
DATA = """
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Numbers(LightningDataModule):
    def __init__(self, batch_size: int = 4, num_workers=0):
        super().__init__()
        self.batch_size = batch_size

    def _loader(self, shuffle):
        x = torch.linspace(0, 1, 32).reshape(16, 2)
        data = TensorDataset(x, x.sum(1, keepdim=True))
        return DataLoader(data, self.batch_size, shuffle=shuffle)

    def train_dataloader(self):
        return self._loader(True)

    def val_dataloader(self):
        return self._loader(False)
"""
HEAD = "model.net={_target_: zoo.nets.Head, size: 2}"
LOGGED = ["epoch", "train_loss", "val_acc", "val_loss"]


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with its packages below src/."""
    return write(tmp_path / "theirs", {"src/zoo/nets.py": NET, "src/zoo/numbers.py": DATA})


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(adopt.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refusal prints."""
    assert adopt.main(arguments) == 2
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1
    return shown.err


def content(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def described(*arguments: dict[str, Any], of_bases: Any = None) -> dict[str, Any]:
    return {"arguments": list(arguments), "of_bases": of_bases}


@pytest.mark.parametrize("layout", ["", "src/", "deep/pkg/"])
def test_classes_of_any_layout_are_candidates(tmp_path: Path, layout: str) -> None:
    root = write(tmp_path, {f"{layout}nets.py": NET, f"{layout}numbers.py": DATA})
    write(root, {"tests/nets.py": NET, ".venv/nets.py": NET, "broken.py": "class ("})
    prefix = layout.removeprefix("src/").replace("/", ".")
    read = find_classes(root)
    assert read.models == [f"{prefix}nets:LitNet"]  # not its base
    assert read.data == [f"{prefix}numbers:Numbers"]


def test_a_src_that_is_a_package_is_part_of_the_name(tmp_path: Path) -> None:
    write(tmp_path, {"src/__init__.py": "", "src/nets.py": NET})
    assert find_classes(tmp_path).models == ["src.nets:LitNet"]


def test_several_candidates_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"a.py": NET, "b.py": NET})
    line = printed([str(tmp_path)], capsys)
    assert "--model" in line and "a:LitNet, b:LitNet" in line
    assert sorted(content(tmp_path)) == ["a.py", "b.py"]


def test_settings_hold_each_argument_or_say_why_not(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adopt.main([str(repository), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    text = shown.partition("--- conf/model/lit_net.yaml\n")[2].partition("\n--- ")[0]
    assert yaml.safe_load(text) == {
        "_target_": "zoo.nets.LitNet",
        "net": "???",
        "lr": 0.01,
        "hidden_size": 4,
        "dropout": 0.1,
        "activation": {"_target_": "torch.nn.modules.linear.Identity"},
        "init": {"_target_": "hydra.utils.get_object", "path": "torch.nn.init.zeros_"},
        "kernel": [3, 3],
        "names": {"a": 1.5},
        "dtype": {"_target_": "hydra.utils.get_object", "path": "torch.float32"},
        "tag": None,
    }
    assert "net: ???  # torch.nn.modules.module.Module" in text
    assert "could not write model.pick" in shown
    assert sorted(content(repository)) == ["src/zoo/nets.py", "src/zoo/numbers.py"]


def test_the_requirements_of_users_are_named_before_those_of_developers(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(repository, {"requirements-dev.txt": "ruff\n", "requirements.txt": "torch\n"})
    assert adopt.main([str(repository), HEAD, "--dry-run"]) == 0
    assert "left alone: requirements.txt: does not ask for" in capsys.readouterr().out


def test_a_foreign_trainer_is_refused_and_nothing_written(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(repository, {"trainer.py": "print('theirs')\n", "inference.py": "print('theirs')\n"})
    before = content(repository)
    line = printed([str(repository), HEAD], capsys)
    assert "trainer.py" in line and "inference.py" not in line
    assert content(repository) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model", "LitNet"], "package.module:Class"),
        (["training.seed=3"], "model.NAME=VALUE"),
        (["--tracker", "cvs"], "did you mean 'csv'"),
    ],
)
def test_bad_input_is_one_line(
    repository: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    before = content(repository)
    assert named in printed([str(repository), *arguments], capsys)
    assert content(repository) == before


def test_classes_that_are_not_there_are_named(repository: Path) -> None:
    targets = ["zoo.nets:LitNte", "zoo.gone:Net", "zoo.numbers:Numbers"]
    misspelt, gone, data = adopt_plan.describe(repository, targets)
    assert "LitNet" in misspelt["names"]
    assert "No module named 'zoo.gone'" in gone["error"]
    assert "LightningDataModule" in data["kinds"] and "LightningModule" not in data["kinds"]
    assert [one["name"] for one in data["arguments"]] == ["batch_size", "num_workers"]


def test_a_value_that_the_class_does_not_take_is_named() -> None:
    group = Group("model", "a:Net", described(), OwnYaml(), {"size": 3})
    assert group.unexpected() == "size"
    assert Group("model", "a:Net", described(of_bases=[]), OwnYaml(), {"size": 3}).values == {
        "size": 3
    }


def test_what_has_no_default_is_named_when_all_is_written(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = printed([str(repository), "--yes"], capsys)
    assert "conf/model/lit_net.yaml: net without a default" in line
    assert (repository / "trainer.py").is_file()
    assert not (repository / ".mlmodeldev").exists()


def test_values_of_the_repositorys_own_settings_are_taken(tmp_path: Path) -> None:
    own = "_target_: zoo.nets.LitNet\nlr: 0.5\nroot: ${paths.root}\ndefaults: [a]\n"
    write(tmp_path, {"configs/model/net.yaml": own, "configs/model/a.yaml": "_target_: other.Net"})
    read = own_yaml(tmp_path, "zoo.nets:LitNet")
    assert (read.file, read.values, read.tied) == (
        "configs/model/net.yaml",
        {"lr": 0.5},
        {"root": "${paths.root}"},
    )


def test_the_command_line_comes_before_own_settings_and_defaults() -> None:
    arguments = [
        {"name": name, "annotation": "int", "value": 1} for name in ("one", "two", "three")
    ]
    arguments.append({"name": "four", "annotation": "", "required": True})
    own = OwnYaml("theirs.yaml", {"one": 2, "two": 2})
    group = Group("model", "a:HTTPNet2", described(*arguments), own, {"one": 3})
    assert group.values == {"one": 3, "two": 2, "three": 1}
    assert (group.missing, group.place) == (["four"], "conf/model/http_net2.yaml")
    assert yaml.safe_load(group.text())["four"] == "???"


def test_arguments_of_bases_stand_as_comments() -> None:
    base = [{"name": "size", "annotation": "int", "value": 3}]
    text = Group("data", "a:Data", described(of_bases=base), OwnYaml(), {}).text()
    assert yaml.safe_load(text) == {"_target_": "a.Data"}
    assert "# size: 3" in text


@pytest.mark.parametrize(
    ("logged", "chosen"),
    [
        (LOGGED, ("val_loss", "min")),
        (["val/acc", "train/loss"], ("val/acc", "max")),
        (["valid_auroc"], ("valid_auroc", "max")),
        (["val_rmse", "test_loss"], ("val_rmse", "min")),
        (["g_loss", "d_loss_fake"], ("g_loss", "min")),
        (["temperature"], None),
        ([], None),
    ],
)
def test_the_monitor_is_chosen_of_what_is_logged(
    logged: list[str], chosen: tuple[str, str] | None
) -> None:
    assert choose_monitor(logged) == chosen


def test_a_sweep_tries_values_around_the_defaults() -> None:
    values = parameters(
        {
            "model": {"num_classes": 10, "net": {"hidden_dim": 32}, "lr": 0.001, "p_drop": 0.5},
            "data": {"batch_size": 8, "num_workers": 4, "image_size": 28},
        },
        own_optimizer=True,
    )
    assert list(values) == ["model.lr", "data.batch_size", "model.net.hidden_dim", "model.p_drop"]
    assert all(default in values[key] for key, default in {"model.lr": 0.001}.items())
    assert values["data.batch_size"] == [4, 8, 16]
    sweep = yaml.safe_load(sweep_text("theirs", values, "val_loss", "min", 5))
    assert sweep["metric"] == {"name": "val_loss", "goal": "minimize"}
    assert (sweep["method"], sweep["run_cap"]) == ("random", 8)


@pytest.mark.slow
def test_an_adopted_repository_trains_and_sweeps(repository: Path) -> None:
    before = content(repository)
    done = run(repository.parent, "-m", "mlmodeldev", "adopt", "theirs", HEAD, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "monitor: val_loss (min)" in done.stdout
    assert done.stdout.count("\npython trainer.py") == 8  # the plan
    config = yaml.safe_load((repository / "conf" / "config.yaml").read_text())
    assert config["training"] == {"monitor": "val_loss", "mode": "min"}
    sweep = yaml.safe_load((repository / "sweep" / "config.yaml").read_text())
    assert sweep["metric"] == {"name": "val_loss", "goal": "minimize"}
    assert before.items() <= content(repository).items()
    assert not (repository / "runs").exists()

    trained = run(repository, "trainer.py", "training.max_epochs=2")
    assert trained.returncode == 0, trained.stderr
    assert (Path(trained.stdout.splitlines()[-1]) / "best" / "model.safetensors").is_file()

    trials = run(repository, "slurm/SlurmTrain.py", "training.max_epochs=1")
    assert trials.returncode == 0, trials.stdout + trials.stderr
    assert len(list((repository / "runs").glob("*/*/trial.json"))) == 9

    again = run(repository.parent, "-m", "mlmodeldev", "adopt", "theirs", HEAD, "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "written: nothing new" in again.stdout


@pytest.mark.slow
def test_a_mistake_in_the_repository_comes_with_its_place(repository: Path) -> None:
    file = repository / "src" / "zoo" / "nets.py"
    file.write_text(
        NET.replace(
            "def training_step(self, batch, index)",
            "def training_step(self, batch, index, optimizer_idx)",
        )
    )
    done = run(repository.parent, "-m", "mlmodeldev", "adopt", "theirs", HEAD, "--yes")
    assert done.returncode in (1, 2)
    (line,) = done.stderr.splitlines()
    assert "the rehearsal failed" in line and "optimizer_idx" in line
    assert (repository / "trainer.py").is_file()


def test_src_comes_after_the_projects_own_folder(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["/other"])
    put_on_path(repository)
    put_on_path(repository)
    assert sys.path == [str(repository), str(repository / "src"), "/other"]
    monkeypatch.setattr(sys, "path", ["/other", str(repository)])
    put_on_path(repository)
    assert sys.path == ["/other", str(repository), str(repository / "src")]
