"""The table of trials: whole identities on any terminal, and a reader that has seen enough."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.slurm.command_line import main
from mlmodeldev.sweep import load

ROOT = Path(__file__).resolve().parents[2]
GRID = ROOT / "tests" / "frozen" / "sweeps" / "grid.yaml"


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
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


def test_the_own_metric_of_a_model_is_shown_and_brackets_are_text(tmp_path, capsys, monkeypatch):
    """What the model has logged, under its name; a list of paths is no colour of the table's."""
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "own.yaml"
    file.write_text(
        "name: 'own [/a]'\nmethod: grid\nmetric: {name: val_f1, goal: maximize}\n"
        "parameters: {data.files: {values: [[/data/a, /data/b], [x], '[red]', ':car:']}}\n"
    )
    sweep = load(file)
    for number, trial in enumerate(sweep.trials()):
        folder = tmp_path / "runs" / sweep.folder / trial.id
        folder.mkdir(parents=True)
        metric = {"name": "val_f1", "mode": "max", "value": number / 8, "epoch": 2}
        record = {"state": "done", "metric": metric, "epoch": 3, "epochs": 3, "attempts": 1,
                  "test": {"test_loss": 7.0, "test_f1": 0.625}}  # fmt: skip
        (folder / "trial.json").write_text(json.dumps(record))
    assert main(["status", "--sweep", str(file), f"artefacts.runs_dir={tmp_path}/runs"]) == 0
    shown = capsys.readouterr().out
    assert "own [/a]" in shown
    assert "val_f1" in shown
    rows = [line.split("│")[1:-1] for line in shown.splitlines() if line.startswith("│ ")]
    assert [row[4].strip() for row in rows] == ["0.3750", "0.2500", "0.1250", "0.0000"], (
        "the best first"
    )
    assert {row[5].strip() for row in rows} == {"0.6250"}
    for text in ("files=[/data/a,/data/b]", "files=[x]", "files=[red]", "files=:car:"):
        assert text in shown


@pytest.mark.parametrize("action", ["status", "plan"])
def test_a_reader_that_leaves_is_no_fault(action, tmp_path):
    command = f"{sys.executable} slurm/SlurmTrain.py {action} --json --sweep {GRID} --count 2000"
    done = subprocess.run(
        ["bash", "-c", f"{command} cluster=local artefacts.runs_dir={tmp_path} | head -c 1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")
