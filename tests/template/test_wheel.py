"""A wheel away from its clone: a new project, a trial, a sweep, its tests, a later version."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from mlmodeldev import __version__
from mlmodeldev.template.source import OWN_FILES, load_template
from tests.template.conftest import NEW_NAME, NEWER, OLD_NAME, Installed

pytestmark = [pytest.mark.slow, pytest.mark.project, pytest.mark.timeout(900)]
SMALL = ("training.limit_train_batches=4", "callbacks.cka.enabled=false", "training.max_epochs=1")
MINE = f"""# @package _global_
artefacts:
  {OLD_NAME}: warn  # mine
"""
TWO = """
name: two
program: trainer.py
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {values: [0.001, 0.003]}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""


def git(folder: Path, *arguments: str) -> str:
    own = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *own, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def project(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that the wheel's own command has written."""
    folder = tmp_path_factory.mktemp("projects")
    made = installed.run(folder, "mlmodeldev", "init", "mine", "--tracker", "csv", "--yes")
    assert "a project of mlmodeldev" in made.stdout
    return folder / "mine"


def test_the_wheel_holds_the_library_and_the_files_of_a_project(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"mlmodeldev", f"mlmodeldev-{__version__}.dist-info"}
    carried = {
        name.removeprefix("mlmodeldev/template/project/")
        for name in names
        if name.startswith("mlmodeldev/template/project/")
    }
    assert carried == set(load_template().files) - set(OWN_FILES.values())


def test_a_project_holds_the_top_level_and_asks_for_this_wheel(
    installed: Installed, project: Path
) -> None:
    there = {path.name for path in project.iterdir()}
    assert there == {
        *("trainer.py", "model.py", "datamodule.py", "inference.py", "conf", "sweep", "slurm"),
        *("tests", "environment.yml", "requirements.txt", "README.md", ".gitignore"),
        ".mlmodeldev",
    }
    (line,) = re.findall(r"(?m)^mlmodeldev.*", (project / "requirements.txt").read_text())
    assert line.startswith(f"mlmodeldev @ {installed.wheel.as_uri()}#sha256=")


def test_it_trains_with_the_installed_library(installed: Installed, project: Path) -> None:
    done = installed.run(project, "python", "trainer.py", *SMALL)
    folder = project / done.stdout.splitlines()[-1]
    record = json.loads((folder / "trial.json").read_text())
    assert record["state"] == "done"


def test_arguments_are_checked_against_the_projects_own_classes(
    installed: Installed, project: Path
) -> None:
    refused = installed.run(project, "python", "trainer.py", "model.hiden_size=8", code=2)
    (line,) = refused.stderr.strip().splitlines()
    assert "hiden_size" in line
    assert "hidden_size" in line.replace("hiden_size", "", 1)


def test_it_runs_a_sweep(installed: Installed, project: Path) -> None:
    (project / "sweep" / "two.yaml").write_text(TWO)
    done = installed.run(project, "mlmodeldev", "slurm", "--sweep", "sweep/two.yaml", *SMALL)
    records = [json.loads(file.read_text()) for file in project.glob("runs/two/*/trial.json")]
    assert [record["state"] for record in records] == ["done", "done"], done.stdout + done.stderr


def test_a_later_version_keeps_edits_names_conflicts_and_passes_the_projects_tests(
    installed: Installed, later: Installed, tmp_path: Path
) -> None:
    installed.run(tmp_path, "mlmodeldev", "init", "mine", "--tracker", "csv", "--yes")
    project = tmp_path / "mine"
    edit(project / "trainer.py", "        quiet()\n", "        quiet()  # mine\n")
    edit(project / "conf" / "config.yaml", "- optimizer: adamw", "- optimizer: sgd")
    edit(project / "slurm" / "agent.sh", "--time=12:00:00", "--time=48:00:00")
    (project / "conf" / "experiment").mkdir()
    (project / "conf" / "experiment" / "mine.yaml").write_text(MINE)
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "Mine")

    refused = later.run(project, "mlmodeldev", "update", code=2)
    assert "conflict  slurm/agent.sh: you and" in refused.stderr
    assert "nothing was written" in refused.stderr.splitlines()[-1]
    assert git(project, "status", "--porcelain") == ""

    written = later.run(project, "mlmodeldev", "update", "--conflicts", code=1)
    assert f"{__version__} -> {NEWER}" in written.stdout
    script = (project / "slurm" / "agent.sh").read_text()
    assert "<<<<<<< yours\n#SBATCH --time=48:00:00\n" in script
    assert f"#SBATCH --time=24:00:00\n>>>>>>> {NEWER}\n" in script
    trainer = (project / "trainer.py").read_text()
    assert trainer.startswith('"""Later: ')
    assert "quiet()  # mine" in trainer
    config = (project / "conf" / "config.yaml").read_text()
    assert "- optimizer: sgd" in config
    assert "- _self_  # later" in config
    own = (project / "conf" / "experiment" / "mine.yaml").read_text()
    assert own == MINE.replace(OLD_NAME, NEW_NAME)

    resolved = re.sub(r"(?s)<<<<<<< yours\n(.*?)=======.*?>>>>>>> \S+\n", r"\1", script)
    (project / "slurm" / "agent.sh").write_text(resolved)
    git(project, "commit", "-qam", "Later")
    assert f"is at {NEWER} already" in later.run(project, "mlmodeldev", "update").stdout
    shown = later.run(project, "python", "trainer.py", "experiment=mine", "--cfg", "job").stdout
    assert f"{NEW_NAME}: warn" in shown
    older = installed.run(project, "mlmodeldev", "update", code=2).stderr
    assert len(older.splitlines()) == 1
    assert f"is a project of mlmodeldev {NEWER}" in older
    tested = later.run(project, "python", "-m", "pytest", "-q", "tests")
    assert "6 passed" in tested.stdout
