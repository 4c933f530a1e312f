"""The pinned set: pyproject.toml, the locks and environment.yml agree, and it imports."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "torchvision", "litdata", "ray", "sweeps", "hydra-optuna-sweeper", "neptune", "simple-slurm",
    "torchdata", "lightning",
}  # fmt: skip
BINARY = {".png", ".svg", ".ico", ".gz", ".ckpt", ".npz", ".safetensors"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked() -> dict[str, Version]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    return {canonicalize_name(n): Version(v) for n, v in (pin.split("==") for pin in pins)}


def declared() -> list[Requirement]:
    extras = project()["optional-dependencies"]
    tested = ["dev", "tensorboard", "accelerate", "dashboard", "parquet"]
    given = [*project()["dependencies"], *(text for name in tested for text in extras[name])]
    return [Requirement(text) for text in given]


def test_the_lock_fulfils_what_the_project_declares() -> None:
    pins = locked()
    for requirement in declared():
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but locked {version}"


def test_the_lock_is_what_is_installed() -> None:
    for name, version in locked().items():
        installed = Version(importlib.metadata.version(name))
        assert Version(installed.public) == version, name


def test_torch_is_a_range_of_which_the_lock_has_one_version() -> None:
    """A cluster's own build of torch fits the project; what is tested is exact."""
    torch = next(r for r in declared() if r.name == "torch")
    assert {s.operator for s in torch.specifier} == {">=", "<"}
    assert locked()["torch"] in torch.specifier
    assert Version("2.13.0+cu130") in torch.specifier
    assert Version("3.0") not in torch.specifier


def test_the_lock_is_made_of_what_is_installed() -> None:
    """What `make lock` writes here is the lock, whatever else the environment holds."""
    shown = subprocess.run(
        [sys.executable, ROOT / "tools" / "pins.py"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert shown.stdout.splitlines() == [line for line in lines if not line.startswith("#")]


def test_a_lock_of_another_kind_of_machine_is_made_and_installed(tmp_path: Path) -> None:
    """`make lock FROM=... LOCK=...` keeps the labels of builds, and changes nothing else."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "environment.yml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = subprocess.run(
        ["make", "lock", f"FROM={sys.executable}", "LOCK=requirements-node.lock"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "requirements-node.lock").read_text()
    assert f"\ntorch=={importlib.metadata.version('torch')}\n" in made
    after = {p: p.read_bytes() for p in before}
    assert after == before
    calls = installed(tmp_path, LOCK="requirements-node.lock")
    assert calls[0][-1] == f"torch=={importlib.metadata.version('torch')}"
    assert calls[1][-2:] == ["-r", str(tmp_path / "requirements-node.lock")]


def hashed() -> dict[str, tuple[Version, list[str]]]:
    text = (ROOT / "requirements-hashes.lock").read_text()
    result = {}
    for block in re.findall(r"^[^#\s](?:.*\\\n)+.*$", text, re.MULTILINE):
        pin, *hashes = (line.strip(" \\") for line in block.splitlines())
        name, version = pin.split("==")
        result[canonicalize_name(name)] = (Version(version), hashes)
    return result


def test_the_hashes_are_those_of_the_lock() -> None:
    pins = {name: version for name, (version, _) in hashed().items()}
    assert pins.pop("setuptools") >= Version("77")  # as [build-system] asks
    expected = locked()
    del expected["torch"]  # its build differs from machine to machine
    assert pins == expected


def test_each_package_has_hashes_and_nothing_else() -> None:
    for name, (_, hashes) in hashed().items():
        assert hashes, name
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for text in hashes), name
    # compiled ones have a file for each platform and Python
    assert len(hashed()["numpy"][1]) > 20
    for file in ROOT.glob("*.lock"):
        assert "://" not in file.read_text(), file.name  # from whichever index pip is told of


def installed(root: Path, **variables: str) -> list[list[str]]:
    """Return the words of each call of pip by tools/venv.sh."""
    venv = root / "venv"
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    pip = venv / "bin" / "pip"
    pip.write_text('#!/bin/sh\nfor word; do printf "%s\\t" "$word"; done\necho\n')
    pip.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k not in {"LOCK", "HASHES"}}
    shown = subprocess.run(
        ["bash", root / "tools" / "venv.sh", venv],
        env={**environment, "PYTHON": sys.executable, **variables},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [line.split("\t")[:-1] for line in shown.splitlines() if line.startswith("install\t")]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for lock in ROOT.glob("*.lock"):
        shutil.copy(lock, tmp_path)
    return tmp_path


def test_by_default_torch_comes_first_and_no_hash_is_required(copied: Path) -> None:
    torch, rest, library = installed(copied)
    assert torch[-1] == f"torch=={locked()['torch']}"
    assert rest[-2:] == ["-r", str(copied / "requirements.lock")]
    assert "--require-hashes" not in torch + rest
    assert library[-4:] == ["--no-deps", "--no-build-isolation", "--editable", str(copied)]


def test_with_hashes_only_torch_comes_unchecked_and_last(copied: Path) -> None:
    tools, rest, torch, _ = installed(copied, HASHES="1")
    for call in (tools, rest):
        assert {"--require-hashes", "--no-deps"} < set(call)
    assert "--no-build-isolation" in rest  # else pip fetches what builds, unchecked
    assert rest[-2:] == ["-r", str(copied / "requirements-hashes.lock")]
    assert torch[-1] == f"torch=={locked()['torch']}"


def added_by_extras() -> dict[str, Version]:
    lines = (ROOT / "tools" / "extras.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def test_the_optional_packages_change_nothing_that_is_locked() -> None:
    added = added_by_extras()
    assert not added.keys() & locked().keys()
    extras = project()["optional-dependencies"]
    for name in ("mlflow", "clearml", "onnx", "notebook"):
        for wanted in map(Requirement, extras[name]):
            assert added[canonicalize_name(wanted.name)] in wanted.specifier


def test_what_the_optional_packages_need_is_locked() -> None:
    folder = ROOT / ".venv-extras"
    if not folder.is_dir():
        pytest.skip("no optional packages; make .venv-extras")
    there = {**locked(), **added_by_extras()}
    for package in importlib.metadata.distributions(path=[str(folder)]):
        for need in map(Requirement, package.requires or []):
            name = canonicalize_name(need.name)
            if name == "pyarrow" or (need.marker and not need.marker.evaluate({"extra": ""})):
                continue  # its newest is newer than MLflow allows (docs/dependencies.md)
            assert there[name] in need.specifier, f"{package.name} needs {need}"


def test_the_malicious_versions_of_lightning_are_excluded() -> None:
    lightning = next(r for r in declared() if r.name == "pytorch-lightning")
    assert not lightning.specifier.contains("2.6.2")
    assert not lightning.specifier.contains("2.6.3")


def test_conda_installs_the_same_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == project()["name"]
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = next(e["pip"] for e in environment["dependencies"] if isinstance(e, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = [entry for entry in conda if entry.startswith("python=")]
    wanted = Requirement(f"python{project()['requires-python']}")
    assert wanted.specifier.contains(python.partition("=")[2])


@pytest.mark.parametrize("there", [False, True])
def test_make_conda_makes_the_environment_once(tmp_path: Path, there: bool) -> None:
    """conda itself is a stand-in here that writes down what it was asked."""
    conda = tmp_path / "conda"
    listed = "mlmodeldev  /envs/mlmodeldev" if there else "base  /envs"
    conda.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "env list" ] && echo "{listed}" || echo "$@" >>{tmp_path}/asked\n'
    )
    conda.chmod(0o755)
    subprocess.run(["make", "conda", f"CONDA_EXE={conda}"], cwd=ROOT, check=True)
    requested = (tmp_path / "asked").read_text().splitlines()
    assert ("env create --file environment.yml" in requested) is not there
    assert requested[-1].startswith("run --no-capture-output --name mlmodeldev python -m pytest")


def test_nothing_that_breaks_the_set_is_in_it() -> None:
    there = {canonicalize_name(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    assert not there & FORBIDDEN
    if importlib.metadata.version("torch").endswith("+cpu"):
        # nvidia-ml-py only reads the driver; everything else of that name is CUDA
        assert not {n for n in there if n.startswith("nvidia-")} - {"nvidia-ml-py"}


def test_the_set_imports() -> None:
    """`pip check` calls a broken set whole; importing it does not."""
    code = (
        "import torch, pytorch_lightning, torchmetrics, wandb, submitit, optuna, pySmartDL\n"
        "from transformers import BertForSequenceClassification, ViTModel, AutoTokenizer\n"
        "import trainer, model, datamodule, inference\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_types_are_given_to_those_who_import() -> None:
    assert (ROOT / "mlmodeldev" / "py.typed").is_file()
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert "py.typed" in tools["setuptools"]["package-data"]["mlmodeldev"]


def test_every_direct_dependency_is_explained() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text()
    extras = [r for group in project()["optional-dependencies"].values() for r in group]
    for requirement in map(Requirement, [*project()["dependencies"], *extras]):
        assert f"`{requirement.name}`" in text, requirement.name


def test_the_repository_speaks_of_the_product_alone() -> None:
    """No paths of a machine, no registry's host, no keys."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    machine = re.compile(r"(?<![\w.])/(?:root|home)/\w|files\.pythonhosted|\b[0-9a-f]{40}\b")
    for name in listed:
        file = ROOT / name
        if file.suffix in BINARY or name == "tests/test_packaging.py":
            continue
        text = file.read_text(encoding="utf-8")
        result = machine.search(re.sub(r"uses: [\w/-]+@[0-9a-f]{40}", "", text))  # a pinned action
        assert not result, f"{name}: {result and result[0]}"
