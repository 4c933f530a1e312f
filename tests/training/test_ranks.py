"""Two processes train one trial: whoever starts them, and after an interruption."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "logger=csv",
    "callbacks=none",
    "training.max_epochs=2",
    "training.limit_train_batches=6",
    "training.log_every_n_steps=1",
    "training.test=false",
    "model.hidden_size=16",
    "model.num_layers=1",
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    *("--main_process_port", "0"),
)


def start(launcher, *overrides: str, folder: Path, name: str) -> subprocess.Popen[str]:
    where = [
        f"artefacts.runs_dir={folder}",
        f"artefacts.data_dir={folder}/data",
        f"artefacts.trial={name}",
    ]
    command = [sys.executable, *launcher, str(ROOT / "trainer.py")]
    return subprocess.Popen(
        [*command, *SMALL, *where, *overrides],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(launcher, *overrides: str, folder: Path, name: str) -> tuple[int, str, Path]:
    process = start(launcher, *overrides, folder=folder, name=name)
    try:
        output, _ = process.communicate(timeout=200)
    finally:
        process.kill()
    return process.returncode, output, folder / "single" / name


def column(trial: Path, name: str) -> list[float]:
    with (trial / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    code, output, trial = run((), folder=folder, name="one")
    assert code == 0, output
    return trial


@pytest.mark.parametrize(
    ("launcher", "overrides"),
    [((), ["training.devices=2"]), (TORCHRUN, []), (ACCELERATE, ["training.devices=2"])],
    ids=["by itself", "torchrun", "accelerate launch"],
)
def test_two_processes_compute_what_one_does(one, tmp_path, launcher, overrides) -> None:
    code, output, trial = run(launcher, *overrides, folder=tmp_path, name="two")
    assert code == 0, output
    assert json.loads((trial / "trial.json").read_text())["state"] == "done"
    for name in ("train/loss", "val/loss", "val/accuracy"):
        theirs, ours = column(one, name), column(trial, name)
        assert len(ours) == len(theirs) > 1
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_one_process_trains_two_such_trials_one_after_the_other(tmp_path) -> None:
    """As a script or a notebook that calls ``train`` twice does."""
    process = start(
        (),
        "training.devices=2",
        "training.seed=1,2",
        "-m",
        folder=tmp_path,
        name="seed-${training.seed}",
    )
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    for name in ("seed-1", "seed-2"):
        assert (
            json.loads((tmp_path / "single" / name / "trial.json").read_text())["state"] == "done"
        )


def test_requested_two_and_got_one_is_an_error(tmp_path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1")
    code, output, _ = run(launcher, "training.devices=2", folder=tmp_path, name="x")
    assert code != 0
    assert "training.devices=2" in output
    assert "the launcher started 1" in output
    assert not (tmp_path / "single").exists()


def test_nodes_without_a_launcher_are_an_error(tmp_path) -> None:
    code, output, _ = run((), "training.num_nodes=2", folder=tmp_path, name="x")
    assert code == 2
    assert "training.num_nodes=2" in output


def test_a_batch_that_does_not_divide_is_an_error_on_all(tmp_path) -> None:
    code, output, _ = run(
        (), "training.devices=2", "processing.batch_size=63", folder=tmp_path, name="x"
    )
    assert code == 2
    assert "processing.batch_size=63" in output


def test_an_interrupted_pair_goes_on_bit_for_bit(tmp_path) -> None:
    """The signal reaches one process only; both agree, save once and end with 75."""
    wanted = (
        *("training.devices=2", "training.max_epochs=60", "training.limit_val_batches=1"),
        *("optimizer.schedule=constant", "optimizer.warmup_fraction=0.0"),
    )
    process = start((), *wanted, folder=tmp_path, name="stopped")
    trial = tmp_path / "single" / "stopped"
    deadline = time.monotonic() + 120
    while not (trial / "log.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert json.loads((trial / "trial.json").read_text())["state"] == "interrupted"
    step = int(max((trial / "checkpoints").glob("step-*")).stem.partition("-")[2])
    assert step < 360
    epochs = f"training.max_epochs={step // 6 + 2}"
    # a constant rate: the number of epochs then doesn't change what the steps before it did
    assert column(trial, "train/loss")[:1]
    code, output, resumed = run((), *wanted, epochs, folder=tmp_path, name="stopped")
    assert code == 0, output
    assert f"going on from step {step}" in output
    code, output, whole = run((), *wanted, epochs, folder=tmp_path, name="whole")
    assert code == 0, output
    assert column(resumed, "train/loss")[:step] != []
    assert torch.equal(
        torch.tensor(column(resumed, "train/loss")), torch.tensor(column(whole, "train/loss"))
    )
