"""Several trials by one command line, side by side: ``trainer.py -m ... hydra/launcher=joblib``."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "logger=csv",
    "callbacks=none",
    "training.limit_train_batches=2",
    "training.limit_val_batches=1",
    "training.test=false",
    "model.hidden_size=16",
    "model.num_layers=1",
)


@pytest.mark.slow
def test_joblib_runs_each_combination_once(tmp_path: Path, data_dir: Path) -> None:
    command = [sys.executable, str(ROOT / "trainer.py"), "-m", "hydra/launcher=joblib"]
    command += ["optimizer.lr=0.001,0.003", "training.max_epochs=1,2", *SMALL]
    command += ["hydra.launcher.n_jobs=2", f"artefacts.data_dir={data_dir}"]
    done = subprocess.run(
        [*command, f"artefacts.runs_dir={tmp_path}/runs", f"hydra.sweep.dir={tmp_path}/hydra"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = []
    for record in sorted((tmp_path / "runs").glob("*/*/trial.json")):
        folder = record.parent
        assert json.loads(record.read_text())["state"] == "done"
        assert json.loads(record.read_text())["attempts"] == 1
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        lr, epochs = settings["optimizer"]["lr"], settings["training"]["max_epochs"]
        assert len(json.loads((folder / "log.json").read_text())) == epochs
        # what the optimizer itself kept: the settings are not only written down
        newest = max((folder / "checkpoints").glob("step-*.ckpt"))
        checkpoint = torch.load(newest, weights_only=True)
        assert checkpoint["global_step"] == 2 * epochs
        groups = checkpoint["optimizer_states"][0]["param_groups"]
        assert {group["initial_lr"] for group in groups} == {lr}
        seen.append((lr, epochs))
    assert sorted(seen) == list(itertools.product([0.001, 0.003], [1, 2]))
