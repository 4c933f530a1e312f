"""A search of the real digits from ``SlurmTrain.py``, one trial killed; then its table."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mlmodeldev.trial.record import read_record

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """\
# Command: none. Expected best value: none. Cost: none
program: trainer.py
name: hunt
method: bayes
run_cap: 2
metric: {name: val/accuracy, goal: maximize}
early_terminate: {type: hyperband, min_iter: 3}
parameters:
  optimizer.lr: {distribution: log_uniform_values, min: 0.001, max: 0.03}
  training.max_epochs: {value: 4}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""
SMALL = (
    *(
        "logger=csv",
        "callbacks=none",
        "training.test=false",
        "model.hidden_size=16",
        "model.num_layers=1",
    ),
    *("cluster=local", "training.limit_train_batches=20"),
)


def command(tmp_path: Path, *arguments: str) -> list[str]:
    file = tmp_path / "hunt.yaml"
    file.write_text(SWEEP)
    where = [f"artefacts.runs_dir={tmp_path}/runs", f"artefacts.data_dir={tmp_path}/data"]
    action, *options = arguments
    script = str(ROOT / "slurm" / "SlurmTrain.py")
    return [sys.executable, script, action, "--sweep", str(file), *options, *SMALL, *where]


def test_a_search_survives_a_killed_trial_and_is_collected(tmp_path):
    process = subprocess.Popen(
        command(tmp_path, "submit", "--jobs", "2"), stdout=subprocess.PIPE, text=True
    )
    base = tmp_path / "runs" / "hunt"
    victim = None
    deadline = time.monotonic() + 200
    while victim is None and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
        for checkpoint in base.glob("*/checkpoints/step-*.ckpt"):
            folder = checkpoint.parents[1]
            if read_record(folder).get("state") == "running":
                victim = folder
                os.kill(read_record(folder)["owner"]["pid"], signal.SIGKILL)
                break
    out, _ = process.communicate(timeout=200)
    assert victim is not None
    assert process.returncode == 0, out
    folders = sorted(file.parent for file in base.glob("*/trial.json"))
    assert len(folders) == 2
    assert {read_record(f)["state"] for f in folders} <= {"done", "pruned"}
    assert read_record(victim)["attempts"] == 2
    assert "going on from step" in (victim / "log.txt").read_text()
    for folder in folders:
        epochs = [entry["epoch"] for entry in json.loads((folder / "log.json").read_text())]
        assert epochs in ([1, 2, 3, 4], [1, 2, 3]), folder

    done = subprocess.run(
        command(tmp_path, "collect", "--json"), capture_output=True, text=True, check=True
    )
    results = json.loads(done.stdout)
    assert [t["id"] for t in results["trials"]] != []
    values = [trial["val/accuracy"] for trial in results["trials"]]
    assert values == sorted(values, reverse=True)
    with (base / "results.csv").open(newline="") as file:
        assert {row["id"] for row in csv.DictReader(file)} == {f.name for f in folders}
