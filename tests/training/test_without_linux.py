"""A laptop whose system is not Linux: a trial, and a sweep on this machine, work there.

There is none here: a Linux stands in, without /proc and without the calls that macOS has not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SMALL = (
    "training.max_epochs=1",
    "training.limit_train_batches=4",
    "training.limit_val_batches=2",
    "callbacks.cka.max_batches=1",
    "model.hidden_size=16",
    "model.num_layers=1",
)
HIDDEN = 'mount -t tmpfs none /proc && exec "$@"'


def has_own_mounts() -> bool:
    """Whether this process may hide /proc from its children."""
    command = ["unshare", "--mount", "sh", "-c", HIDDEN, "sh", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_own_mounts(), reason="only root can hide /proc")


def call(data_dir: Path, runs: Path, *words: str) -> str:
    """Run a command of the project's as on such a laptop; return what it printed."""
    place = [f"artefacts.runs_dir={runs}", f"artefacts.data_dir={data_dir}"]
    command = ["unshare", "--mount", "sh", "-c", HIDDEN, "sh", sys.executable, *words, *place]
    path = f"{Path(__file__).with_name('not_linux')}:{ROOT}"
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "WANDB_MODE": "offline"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def test_a_trial_trains_and_measures_cka(data_dir: Path, tmp_path: Path) -> None:
    call(data_dir, tmp_path, "trainer.py", *SMALL, "logger=csv")
    (folder,) = (tmp_path / "single").glob("[!.]*")
    assert json.loads((folder / "trial.json").read_text())["state"] == "done"
    assert list(folder.glob("cka/*/epoch-0001.png"))


def test_a_sweep_runs_on_this_machine(data_dir: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "two.yaml"
    sweep.write_text(
        "# Expected best value: none\n# Cost: seconds\n# Command: python slurm/SlurmTrain.py\n"
        "program: trainer.py\nname: two\nmethod: grid\n"
        "metric: {name: val/accuracy, goal: maximize}\n"
        "parameters: {optimizer.lr: {values: [0.1, 0.01]}}\n"
    )
    words = ("slurm/SlurmTrain.py", "cluster=local", "--sweep", str(sweep), *SMALL, "logger=csv")
    printed = call(data_dir, tmp_path / "runs", *words)
    assert "2 trials: 2 done" in printed
    assert "was not checked" not in printed
