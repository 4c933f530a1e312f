"""The table of trials: whole identities on any terminal, and a reader that has seen enough."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.slurm.command_line import main
from mlmodeldev.sweep import load

ROOT = Path(__file__).resolve().parents[2]
GRID = ROOT / "tests" / "frozen" / "sweeps" / "grid.yaml"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_identities_can_be_copied(columns, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = """
name: wide
method: grid
parameters:
  optimizer.weight_decay: {values: [0.001234, 0.01234]}
  optimizer.warmup_fraction: {values: [0.123456]}
  processing.batch_size: {values: [32, 64]}
  model.hidden_size: {values: [32]}
"""
    file = tmp_path / "wide.yaml"
    file.write_text(text)
    assert main(["status", "--sweep", str(file), f"artefacts.runs_dir={tmp_path}/runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for trial in load(file).trials():
        assert any(line.startswith(f"│ {trial.id} │") for line in lines), lines
    assert max(map(len, lines)) <= max(columns, 90)


@pytest.mark.parametrize("action", ["status", "plan"])
def test_a_reader_that_leaves_is_no_fault(action, tmp_path):
    command = f"{sys.executable} slurm/SlurmTrain.py {action} --json --sweep {GRID} --count 2000"
    done = subprocess.run(
        ["bash", "-c", f"{command} cluster=local artefacts.runs_dir={tmp_path} | head -c 1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")
