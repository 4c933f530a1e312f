"""Wheels of this clone, and environments beside the locked packages in which they are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlmodeldev.slurm.snapshot import code_files

ROOT = Path(__file__).resolve().parents[2]
NEWER = "99.0.0"
OLD_NAME, NEW_NAME = "changed_data", "on_changed_data"
"""A setting of the group artefacts, and what the later version calls it."""


@dataclass(frozen=True)
class Installed:
    """An environment that has a wheel of the package, and nothing of the clone."""

    venv: Path
    wheel: Path

    def run(self, folder: Path, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in a folder, and look at its exit status."""
        drop = ("PYTHONPATH", "MLMODELDEV_PROJECT", "PYTHONHOME")
        own = {name: value for name, value in os.environ.items() if name not in drop}
        done = subprocess.run(
            [self.venv / "bin" / command[0], *command[1:]],
            cwd=folder,
            env={**own, "MLMODELDEV_CLUSTER": "local", "WANDB_MODE": "offline"},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


def make_wheel(folder: Path, edits: Mapping[str, Callable[[str], str]] | None = None) -> Path:
    """Build a wheel of what git tracks here, in a copy, with edits; no network."""
    copy = folder / "clone"
    for name in code_files(ROOT):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    for name, change in (edits or {}).items():
        for path in copy.glob(name):
            path.write_text(change(path.read_text()))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", *options]
    done = subprocess.run(
        [*pip, "-w", folder, copy], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    shutil.rmtree(copy)
    return wheel


def install(wheel: Path, venv: Path) -> Installed:
    """Make an environment with a wheel in it, beside the packages that are installed here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    command = [*pip, "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=venv)
    assert done.returncode == 0, done.stdout + done.stderr
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "locked.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return Installed(venv, wheel)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An environment with a wheel of this version."""
    folder = tmp_path_factory.mktemp("wheel")
    return install(make_wheel(folder), folder / "venv")


@pytest.fixture(scope="session")
def later(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An environment with a later version: other settings, trainer.py, agent.sh, one new name."""

    def renamed(text: str) -> str:
        return re.sub(rf"\b{OLD_NAME}\b", NEW_NAME, text)

    table = f'= {{"artefacts.{OLD_NAME}": "artefacts.{NEW_NAME}"}}'
    edits: dict[str, Callable[[str], str]] = {
        "mlmodeldev/**/*.py": renamed,
        "mlmodeldev/**/*.yaml": renamed,
        "mlmodeldev/__init__.py": lambda text: re.sub(
            r"(?m)^__version__ = .*", f'__version__ = "{NEWER}"', text
        ),
        "pyproject.toml": lambda text: re.sub(
            r"(?m)^version = .*", f'version = "{NEWER}"', text, count=1
        ),
        "mlmodeldev/template/renames.py": lambda text: text.replace("= {}", table, 1),
        "conf/config.yaml": lambda text: text.replace("  - _self_\n", "  - _self_  # later\n"),
        "trainer.py": lambda text: text.replace('"""Train one trial', '"""Later: train one trial'),
        "slurm/agent.sh": lambda text: re.sub("--time=[0-9:]+", "--time=24:00:00", text),
    }
    folder = tmp_path_factory.mktemp("later")
    return install(make_wheel(folder, edits), folder / "venv")
