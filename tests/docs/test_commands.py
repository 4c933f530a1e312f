"""Each command that README and docs show could run: it is spelled as the programs read it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.commands import commands, lines, problem, problems, shown_files


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project's own files, with those that the pages tell their reader to write."""
    folder = tmp_path_factory.mktemp("shown") / "project"
    folder.mkdir()
    for name in ("conf", "sweep", "examples", "slurm"):
        shutil.copytree(ROOT / name, folder / name)
    for file in ROOT.glob("*.py"):
        shutil.copy(file, folder)
    shutil.copytree(ROOT / "tools", folder / "tools")
    for name, text in shown_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = Path.cwd()
    os.environ["MLMODELDEV_PROJECT"] = str(folder)
    os.chdir(folder)
    yield folder
    os.chdir(before)
    del os.environ["MLMODELDEV_PROJECT"]


def test_each_command_of_the_pages_could_run(project: Path) -> None:
    assert len(list(lines())) > 250
    wrong = list(problems(project))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "make demoo",
        "make lock TORHC=2.13",
        "mlmodeldev innit digits",
        "mlmodeldev trial gc --olderthan 4w",
        "mlmodeldev registry promot digits",
        "python trainer.py optimizer.lrr=0.1",
        "python trainer.py model=no_such_model",
        "python trainer.py --resume",
        "python slurm/SlurmTrain.py collect --to results.parquet",
        "python slurm/SlurmTrain.py colect",
        "python slurm/SlurmTrain.py cluster=no_such_cluster",
        "python slurm/SlurmTrain.py --sweep sweep/no_such.yaml",
        "python inference.py first --txt seven",
        "python -m mlmodeldev.nothing",
        "python -m mlmodeldev.sweep chek sweep/config.yaml",
        "python -m tests.wandb.server --prot 8765",
        "python nothing.py",
        "sbatch slurm/agents.sh ENTITY/PROJECT/ID",
        "bash slurm/agent.sh ENTITY/PROJECT/ID --cuont 1",
        "frobnicate now",
    ],
)
def test_a_command_that_could_not_run_is_seen(project: Path, text: str) -> None:
    assert [problem(words, project) for words in commands(text)] != [None]


def test_a_line_is_taken_apart_as_a_shell_does() -> None:
    text = "A=1 git add -A && mlmodeldev init 'a b' 2>&1 | tee x.log  # a word; another"
    assert commands(text) == [["git", "add", "-A"], ["mlmodeldev", "init", "a b"], ["tee", "x.log"]]
    assert commands("# one trial") == []
