"""``slurm/SlurmTrain.py`` on one machine: plan, run, skip what is done, tell of failures."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlmodeldev.sweep import load

ROOT = Path(__file__).resolve().parents[2]
QUICK = (
    "logger=csv",
    "callbacks=none",
    "training.max_epochs=1",
    "training.limit_train_batches=2",
    "training.limit_val_batches=1",
    "training.test=false",
    "model.hidden_size=16",
    "model.num_layers=1",
)
SWEEP = """\
program: trainer.py
name: two
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {values: [0.001, 0.01]}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    file = tmp_path / "two.yaml"
    file.write_text(SWEEP)
    return file


def slurm_train(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def fixed(tmp_path: Path) -> list[str]:
    return [*QUICK, f"artefacts.runs_dir={tmp_path}/runs", f"artefacts.data_dir={tmp_path}/data"]


def test_plan_lists_the_trials_and_starts_nothing(sweep, tmp_path) -> None:
    done = slurm_train("plan", "--json", "--sweep", str(sweep), *fixed(tmp_path))
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [t["overrides"] for t in plan["trials"]] == [
        {"optimizer.lr": 0.001},
        {"optimizer.lr": 0.01},
    ]
    assert [t["id"] for t in plan["trials"]] == [t.id for t in load(sweep).trials()]
    assert {t["state"] for t in plan["trials"]} == {"missing"}
    assert plan["jobs"] == 2
    assert plan["gpu_hours"] == 0
    lines = [shlex.split(line) for line in plan["script"].splitlines()]
    assert [line[:2] for line in lines] == [["python", "trainer.py"]] * 2
    assert "optimizer.lr=0.001" in lines[0]
    assert not (tmp_path / "runs").exists()
    assert (
        slurm_train("submit", "--dry-run", "--json", "--sweep", str(sweep), *fixed(tmp_path)).stdout
        == done.stdout
    )


def test_trials_run_once_and_new_values_are_added(sweep, tmp_path) -> None:
    run = ("--sweep", str(sweep), *fixed(tmp_path))
    first = slurm_train(*run, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    folders = sorted((tmp_path / "runs" / "two").glob("[!.]*"))
    records = [json.loads((folder / "trial.json").read_text()) for folder in folders]
    assert [record["state"] for record in records] == ["done", "done"]
    assert {folder.name for folder in folders} == {trial.id for trial in load(sweep).trials()}
    assert {r["overrides"]["optimizer.lr"] for r in records} == {0.001, 0.01}

    sweep.write_text(SWEEP.replace("0.01]", "0.01, 0.02]"))
    again = json.loads(slurm_train("submit", "--json", *run).stdout)
    assert [trial["state"] for trial in again["trials"]] == ["done"] * 3
    assert [trial["attempts"] for trial in again["trials"]] == [1] * 3
    for folder, record in zip(folders, records, strict=True):
        assert json.loads((folder / "trial.json").read_text()) == record

    table = slurm_train("status", *run).stdout
    for trial in load(sweep).trials():
        assert trial.id in table
        assert trial.name in table
    assert "val/accuracy" in table


def test_a_failing_trial_is_reported_and_the_others_run(sweep, tmp_path) -> None:
    sweep.write_text(SWEEP.replace("[0.001, 0.01]", "[1.0e+30, 0.01]"))
    run = ("--sweep", str(sweep), *fixed(tmp_path), "optimizer.warmup_fraction=0.0")
    done = slurm_train(*run, "training.gradient_clip_val=null", "training.limit_train_batches=5")
    assert done.returncode == 1
    trials = list(load(sweep).trials())
    states = [
        json.loads((tmp_path / "runs" / "two" / trial.id / "trial.json").read_text())["state"]
        for trial in trials
    ]
    assert states == ["failed", "done"]
    assert "NonFiniteLoss" in (tmp_path / "runs" / "two" / trials[0].id / "log.txt").read_text()


def test_an_interrupted_sweep_goes_on(sweep, tmp_path) -> None:
    longer = [o for o in fixed(tmp_path) if "limit_train" not in o and "max_epochs" not in o]
    command = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), "--sweep", str(sweep)]
    command += [*longer, "training.max_epochs=400"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    first = next(load(sweep).trials())
    log = tmp_path / "runs" / "two" / first.id / "log.json"
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75
    record = json.loads(log.with_name("trial.json").read_text())
    assert record["state"] == "interrupted"
    assert len(list((tmp_path / "runs" / "two").glob("[!.]*"))) == 1, "no other trial was begun"
    before = json.loads(log.read_text())
    epochs = len(before) + 1
    done = slurm_train("--sweep", str(sweep), *longer, f"training.max_epochs={epochs}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(log.read_text())[:-1] == before, "the first trial went on where it was"
    records = [
        json.loads((tmp_path / "runs" / "two" / trial.id / "trial.json").read_text())
        for trial in load(sweep).trials()
    ]
    assert [(r["state"], r["attempts"]) for r in records] == [("done", 2), ("done", 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("optimizer.lr:", "optimizer.lrr:"), "did you mean 'lr'"),
        (("[0.001, 0.01]", "[fast, 0.01]"), "valid number"),
        (("method: grid", "method: gird"), "did you mean 'grid'"),
    ],
)
def test_a_wrong_sweep_is_refused_with_its_line(sweep, tmp_path, change, message) -> None:
    sweep.write_text(SWEEP.replace(*change))
    done = slurm_train("--sweep", str(sweep), *fixed(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{sweep}:" in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_wrong_setting_or_file_is_refused(tmp_path) -> None:
    for arguments, message in (
        (["--sweep", "nowhere.yaml"], "nowhere.yaml"),
        (["optimizer.lrr=1"], "did you mean 'lr'"),
        (["--count", "0"], "at least 1"),
    ):
        done = slurm_train(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
