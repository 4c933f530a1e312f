"""Who runs the commands of each page: a test that follows it word for word, or one of its program.

What needs a network, a cluster, an account or an hour is spelled right (`test_commands`), and its
program has tests that run it with other names and servers; `TESTED_BY` names these.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.commands import lines, pages
from tests.docs.test_commands import project

__all__ = ["project"]

HERE = (
    "docs/sweeps.md",
    "docs/clusters.md",
    "docs/report.md",
    "docs/registry.md",
    "docs/housekeeping.md",
)
"""Pages whose commands run below, in this order, on one sweep of the digits."""
NOT_RUN = {
    "bayes": "a search of its own: tests/sweep/test_search.py",
    "wandb": "a server: tests/wandb",
    "agent": "a server: tests/wandb",
    "optuna-dashboard": "a program of others",
    "cluster": "a Slurm: tests/slurm",
    "doctor": "says what is wrong with this machine: tests/doctor",
    "MLFLOW": "a tracker: tests/tracking/test_registry_places.py",
    "REGISTRY=mlflow": "a tracker: tests/tracking/test_registry_places.py",
    "random.yaml": "another sweep: tests/sweep/test_space.py",
    "rollback": "needs a champion before: tests/tracking/test_registry.py",
}
"""Why a line of these pages is left out, by a word in it."""
TESTED_BY = {
    "README.md": "tests/test_readme.py",
    "CONTRIBUTING.md": "tests/test_workflow.py",
    "docs/index.md": "tests/test_readme.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
    "docs/bring-your-own.md": "tests/test_bring_your_own.py",
    "docs/wandb.md": "tests/wandb/test_wandb_doc.py",
    "docs/settings.md": "tests/settings/test_settings_doc.py",
    "docs/language-models.md": "tests/test_causal_lm.py",
    "docs/doctor.md": "tests/doctor/test_command.py",
    "docs/export.md": "tests/callbacks/test_onnx.py",
    "docs/projects.md": "tests/template/test_init.py",
    "docs/sealed-nodes.md": "tests/wandb/test_sync.py",
    "docs/data-versioning.md": "tests/data/test_dvc.py",
    "docs/data.md": "tests/test_cola.py",
    "docs/fetch.md": "tests/fetch",
    "docs/fine-tuning.md": "tests/training",
    "docs/mlflow.md": "tests/tracking",
    "docs/clearml.md": "tests/tracking",
    "docs/reproduce.md": "tests/training",
    "docs/reliability.md": "tests/chaos",
    "docs/public-modules.md": "benchmarks/public_modules",
}
"""The test of each other page's commands: word for word, or what they do."""


def _commands(page: str) -> list[str]:
    """Return the lines of a page's shell blocks, each once."""
    shown = [line.text for line in lines() if line.page == page and not line.in_text]
    plain = (re.sub(r"(^|\s+)#(\s.*|$)", "", text) for text in shown)
    return [text for text in dict.fromkeys(plain) if text]


def test_no_page_is_left_out() -> None:
    with_commands = {line.page for line in lines() if not line.in_text}
    assert with_commands - set(HERE) - set(TESTED_BY) == set()
    assert not set(HERE) & set(TESTED_BY)
    named = [*TESTED_BY.values(), *re.findall(r"tests/\S+", " ".join(NOT_RUN.values()))]
    for test in named:
        assert (ROOT / test).exists(), test
    assert {page.relative_to(ROOT).as_posix() for page in pages()} >= {*HERE, *TESTED_BY}


@pytest.mark.slow
@pytest.mark.project
def test_the_commands_of_these_pages_run(project: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))}
    (project / "docs").symlink_to(ROOT / "docs")
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    here = {"PATH": path, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    here |= {"MLMODELDEV_CLUSTER": "local"}
    count = 0
    for page in HERE:
        for command in _commands(page):
            if any(word in command for word in NOT_RUN):
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=project, env={**kept, **here}, check=False,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=800,
            )  # fmt: skip
            assert done.returncode == 0, f"{page}: {command}\n{done.stdout}\n{done.stderr}"
            count += 1
    assert count >= 20
