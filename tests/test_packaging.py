"""The pinned set: pyproject.toml, requirements.lock and environment.yml agree, and it imports."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

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


def test_the_malicious_versions_of_lightning_are_excluded() -> None:
    lightning = next(r for r in declared() if r.name == "pytorch-lightning")
    assert not lightning.specifier.contains("2.6.2")
    assert not lightning.specifier.contains("2.6.3")


def test_conda_installs_the_same_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == project()["name"]
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = next(e["pip"] for e in environment["dependencies"] if isinstance(e, dict))
    assert pip == ["-r requirements.lock"]
    (python,) = [entry for entry in conda if entry.startswith("python=")]
    wanted = Requirement(f"python{project()['requires-python']}")
    assert wanted.specifier.contains(python.partition("=")[2])


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
        found = machine.search(file.read_text(encoding="utf-8"))
        assert not found, f"{name}: {found and found[0]}"
