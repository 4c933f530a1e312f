"""The hooks of .pre-commit-config.yaml, run one by one as pre-commit runs them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.secrets.planted import HEX

ROOT = Path(__file__).resolve().parents[1]
CLEAN = '"""A module."""\n\nx = {"a": 1}\n'


def hooks() -> dict[str, dict[str, Any]]:
    (own,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert own["repo"] == "local"  # nothing is fetched
    return {hook["id"]: hook for hook in own["hooks"]}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "tools" / "hooks", folder / "tools" / "hooks")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "mlmodeldev").symlink_to(ROOT / "mlmodeldev")
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (folder / ".gitignore").write_text(".venv\nmlmodeldev\n.ruff_cache\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def run(clone: Path, name: str, text: str) -> subprocess.CompletedProcess[str]:
    """Stage a module of this text, and run a hook on it."""
    (clone / "module.py").write_text(text)
    subprocess.run(["git", "add", "module.py"], cwd=clone, check=True)
    hook = hooks()[name]
    files = ["module.py"] if hook.get("pass_filenames", True) else []
    return subprocess.run(
        [*shlex.split(hook["entry"]), *files],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["ruff-check", "ruff-format", "keys"])
def test_a_hook_takes_what_is_right(clone: Path, name: str) -> None:
    done = run(clone, name, CLEAN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (clone / "module.py").read_text() == CLEAN


def test_these_are_all_hooks() -> None:
    assert list(hooks()) == ["ruff-check", "ruff-format", "keys"]
    assert {hook["language"] for hook in hooks().values()} == {"system"}


def test_ruff_refuses_what_the_project_refuses(clone: Path) -> None:
    done = run(clone, "ruff-check", "import os\n")
    assert done.returncode == 1
    assert "F401" in done.stdout


def test_the_format_is_made_right(clone: Path) -> None:
    assert run(clone, "ruff-format", CLEAN.replace(": ", ":  ")).returncode == 0
    assert (clone / "module.py").read_text() == CLEAN  # pre-commit stops at a changed file


def test_a_key_is_refused(clone: Path) -> None:
    done = run(clone, "keys", f'KEY = "{HEX}"\n')
    assert done.returncode == 2
    assert "module.py:1: holds a key" in done.stderr
    assert HEX not in done.stdout + done.stderr


def test_git_s_own_hook_looks_for_keys_in_the_same_way() -> None:
    entry = hooks()["keys"]["entry"].removeprefix("tools/hooks/python")
    assert (
        f'exec "$(dirname "$0")/python"{entry}\n' in (ROOT / "tools/hooks/pre-commit").read_text()
    )


def test_without_an_environment_of_the_project_s_the_active_python_runs(clone: Path) -> None:
    (clone / ".venv").unlink()
    done = subprocess.run(
        ["tools/hooks/python", "-c", "import sys; print(sys.prefix)"],
        cwd=clone, capture_output=True, text=True, check=False,
        env={"PATH": f"{Path(sys.prefix) / 'bin'}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == sys.prefix, done.stderr
