"""A clone whose user has put own files in the place of shipped ones: every test still runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.slurm.snapshot import code_files
from tests.shipped import FILES, ROOT, differing, user_files

pytestmark = pytest.mark.project

MINE = """
from pathlib import Path

def test_it_runs_beside_the_users_files():
    assert Path("model.py").read_text() == "the user's, and not even Python"
"""
LIBRARY = """
from pathlib import Path

def test_the_model_is_as_shipped():
    import mlmodeldev
    assert "class DualEncoder(" in Path("model.py").read_text()
    assert Path(mlmodeldev.__file__).is_relative_to(Path.cwd())
    assert not Path("conf/model/mine.yaml").exists()
    assert Path("sweep/config.yaml").exists()
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout with few tests, whose user has replaced, added and removed shipped files."""
    folder = tmp_path / "clone"
    for name in code_files(ROOT):
        if "/test_" in name and not name.startswith("tests/shipped/"):
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / "model.py").write_text("the user's, and not even Python")
    (folder / "conf" / "model" / "mine.yaml").write_text("_target_: model.Mine\n")
    (folder / "sweep" / "config.yaml").unlink()
    (folder / "tests" / "test_mine.py").write_text(MINE)
    (folder / "tests" / "test_library.py").write_text(LIBRARY)
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    drop = ("PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS", "MLMODELDEV_PROJECT")
    own = {name: value for name, value in os.environ.items() if name not in drop}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**own, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_test_runs_on_the_files_that_it_is_for(clone: Path) -> None:
    done = run(clone, "pytest", "-q", "tests/test_library.py", "tests/test_mine.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 passed") == 2
    assert "conf/model/mine.yaml, model.py, sweep/config.yaml" in done.stdout
    assert run(clone, "pytest", "-q").stdout.count("1 passed") == 2


@pytest.mark.parametrize("name", ["test_library.py", "test_mine.py"])
def test_a_failure_in_either_place_is_the_exit_status(clone: Path, name: str) -> None:
    (clone / "tests" / name).write_text("def test_wrong():\n    assert False\n")
    done = run(clone, "pytest", "-q", "tests/test_library.py", "tests/test_mine.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout


def test_one_place_alone(clone: Path) -> None:
    done = run(
        clone, "pytest", "-q", f"{clone}/tests/test_mine.py::test_it_runs_beside_the_users_files"
    )
    assert done.returncode == 0, done.stdout
    assert "not as shipped" not in done.stdout
    done = run(clone, "pytest", "-q", f"{clone}/tests/test_library.py")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("passed") == 1


def test_a_command_runs_where_the_files_are_as_shipped(clone: Path) -> None:
    program = "import trainer, os; print(trainer.__file__, os.getcwd())"
    done = run(clone, "tests.shipped", "run", sys.executable, "-c", program)
    file, folder = done.stdout.split()
    assert Path(file).parent == Path(folder) != clone
    assert not Path(folder).exists()
    status = run(clone, "tests.shipped", "run", sys.executable, "-c", "raise SystemExit(7)")
    assert status.returncode == 7


def test_the_check_of_the_project_itself_names_each_file(clone: Path) -> None:
    done = run(clone, "tests.shipped", "check")
    assert done.returncode == 1
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert names == ["conf/model/mine.yaml", "model.py", "sweep/config.yaml", "tests/test_mine.py"]
    assert run(clone, "tests.shipped", "renew").returncode == 0
    assert run(clone, "tests.shipped", "check").returncode == 0


def test_all_that_a_user_replaces_is_shipped() -> None:
    names = user_files(FILES)
    assert {"model.py", "datamodule.py", "conf/config.yaml", "sweep/config.yaml"} <= names
    assert {"README.md", "trainer.py", "slurm/agent.sh"} <= names
    assert differing(FILES) == []
