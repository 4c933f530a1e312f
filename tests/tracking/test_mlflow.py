"""Trials in MLflow: one run each, every value once, whatever happens to trial or store.

MLflow's own library reads back what is there; ``make test`` makes the folder that it lies in.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import signal
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlmodeldev.errors import EXIT_INTERRUPTED
from mlmodeldev.tracking.mlflow_names import metric_name
from tests.conftest import TrialResult, Trials, in_fork
from tests.tracking.mlflow_reader import PACKAGES, Reader, use_mlflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PACKAGES.is_dir(), reason="no MLflow; make .venv-extras"),
]

SMALL = (
    "logger=mlflow",
    "model.hidden_size=16",
    "model.num_layers=1",
    "optimizer.lr=0.01",
    "training.max_epochs=2",
    "training.log_every_n_steps=5",
    "processing.batch_size=128",
    "callbacks.cka.max_batches=1",
)
STEPS = 9  # of an epoch


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def empty_database(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to make."""
    folder = tmp_path_factory.mktemp("tables")
    assert reader.runs(folder) == []
    return folder / "mlflow.db"


@pytest.fixture
def made(trials: Trials, empty_database: Path) -> Trials:
    """For trials that find MLflow's tables."""
    trials.runs.mkdir()
    shutil.copy(empty_database, trials.runs)
    return trials


def at_once() -> None:
    """In a trial's process: rows are sent when they come."""
    use_mlflow()
    from mlmodeldev.tracking import mlflow_logger

    mlflow_logger.GATHER_SECONDS = 0.0


def slowly() -> None:
    """In a trial's process: rows are sent when they come, and steps wait until they are."""
    at_once()
    from mlmodeldev.tracking.mlflow_logger import MlflowTrialLogger as Tracker

    log = Tracker.log_metrics

    def log_and_wait(self, *args, **named):
        log(self, *args, **named)
        self._background.drain(60)

    Tracker.log_metrics = log_and_wait


def is_whole(run: dict, folder: Path) -> None:
    """MLflow has the numbers of metrics.csv: each once, in the order of the steps.

    What a step took was measured anew where it was trained again.
    """
    expected: dict[str, dict[int, float]] = defaultdict(dict)
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if text and name not in ("step", "time/logged"):
                    expected[metric_name(name)].setdefault(int(row["step"]), float(text))
    got = {n: values for n, values in run["metrics"].items() if not n.startswith("best/")}
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        assert [step for step, _ in got[name]] == list(values), name
        if not name.startswith("time/"):
            assert [value for _, value in got[name]] == list(values.values()), name


def contents(folder: Path) -> dict[str, bytes]:
    of_mlflow = ("MLmodel", "registered_model_meta")
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name not in of_mlflow}


def test_a_killed_trial_goes_on_in_its_run(made: Trials, reader: Reader, tmp_path: Path) -> None:
    killed = made.run(*SMALL, kill_at=2 * STEPS - 1, patch=slowly)
    assert killed.code == -signal.SIGKILL
    (before,) = reader.runs(made.runs)
    steps = [step for step, _ in before["metrics"]["train/loss"]]
    assert (before["status"], before["id"]) == ("RUNNING", killed.record["mlflow_run"])
    assert steps[-1] > STEPS, "the store has rows of steps that are trained again"

    ended = made.run(*SMALL, patch=at_once)
    assert ended.code == 0, ended.output
    assert "MLflow" not in ended.output
    (run,) = reader.runs(made.runs)
    assert (run["id"], run["status"]) == (before["id"], "FINISHED")
    assert ended.record["mlflow_uploaded"] is True
    is_whole(run, ended.folder)
    best = ended.record["metric"]
    assert [value for _, value in run["metrics"][f"best/{best['name']}"]] == [best["value"]]

    assert (run["params"]["optimizer.lr"], run["params"]["model.hidden_size"]) == ("0.01", "16")
    assert run["tags"]["mlmodeldev.trial.sha"] == ended.record["sha"]
    files = [file.relative_to(ended.folder) for file in ended.folder.glob("cka/*/epoch-*.png")]
    pictures = {file.as_posix() for file in files}
    tables = {f"{file.parent.as_posix()}/matrix.json" for file in files}
    assert {*pictures, *tables, "val/samples.json", "config.yaml"} <= {*run["artifacts"]}
    ((name, model, status),) = run["models"]
    assert (name, status) == ("best", "READY")
    fetched = reader.register(made.runs, model, tmp_path / "fetched")
    assert contents(fetched) == contents(ended.folder / "best")
    source, copy = reader.register_trial(made.runs, ended.folder)
    assert source == f"models:/{model}", "the run's logged model is the version"
    assert contents(copy) == contents(ended.folder / "best")


def test_two_trials_begin_a_sweep_at_once(trials: Trials, reader: Reader) -> None:
    small = (*SMALL, "callbacks.cka.enabled=false", "artefacts.sweep=digits")

    def run(seed: int) -> TrialResult:
        return trials.run(*small, f"training.seed={seed}", name=f"t{seed}", patch=at_once)

    with ThreadPoolExecutor(2) as two:
        results = [*two.map(run, (1, 2))]
    assert [each.code for each in results] == [0, 0], [each.output for each in results]
    parent, *inner = reader.runs(trials.runs)
    assert (parent["name"], parent["status"], parent["metrics"]) == ("digits", "FINISHED", {})
    assert len(inner) == 2
    for run in inner:
        assert run["tags"]["mlflow.parentRunId"] == parent["id"]
        is_whole(run, trials.runs / "digits" / run["tags"]["mlmodeldev.trial"])
    assert {r["tags"]["mlmodeldev.trial"] for r in inner} == {"t1", "t2"}
    assert sum(len(run["models"]) for run in inner) >= 1, "the best so far is kept"


def failing() -> None:
    at_once()
    import model

    def fail(self, *args, **named):
        raise RuntimeError("out of luck")

    model.DualEncoder.validation_step = fail


def test_a_run_ends_as_its_trial_does(made: Trials, reader: Reader) -> None:
    small = (*SMALL, "callbacks.cka.enabled=false")
    at = (signal.SIGTERM, STEPS + 3)
    stopped = made.run(*small, signal_at=at, patch=at_once, name="stopped")
    failed = made.run(*small, patch=failing, name="failed")
    assert (stopped.code, failed.code != 0) == (EXIT_INTERRUPTED, True)
    by_name = {run["tags"]["mlmodeldev.trial"]: run for run in reader.runs(made.runs)}
    assert {name: run["status"] for name, run in by_name.items()} == {
        "stopped": "KILLED",
        "failed": "FAILED",
    }
    is_whole(by_name["stopped"], stopped.folder)
    assert by_name["stopped"]["tags"]["mlmodeldev.state"] == "interrupted"
    assert made.run(*small, patch=at_once, name="stopped").code == 0
    again = next(run for run in reader.runs(made.runs) if run["id"] == by_name["stopped"]["id"])
    assert again["status"] == "FINISHED"
    is_whole(again, stopped.folder)


def away() -> None:
    """In a trial's process: the server's address is one where nobody answers."""
    at_once()
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"


def sync(runs: Path) -> None:
    use_mlflow()
    from mlmodeldev.slurm.commands.wandb import run_sync

    args = argparse.Namespace(runs_dir=str(runs), sweep=None, follow=False, json=False)
    raise SystemExit(run_sync(args))


def test_a_store_that_is_away_harms_no_trial_and_gets_all_later(
    trials: Trials, reader: Reader, empty_database: Path, tmp_path: Path
) -> None:
    trials.runs.mkdir()
    (trials.runs / "mlflow.db").write_text("this is no database\n" * 100)
    broken = trials.run(*SMALL, patch=at_once, name="broken")
    lonely = trials.run(*SMALL, patch=away, name="lonely")
    for ended in (broken, lonely):
        assert ended.code == 0, ended.output
        assert ended.output.count("MLflow: does not take the trial's rows") == 1
        assert (ended.record["state"], ended.record["mlflow_uploaded"]) == ("done", False)

    shutil.copy(empty_database, trials.runs)
    printed = tmp_path / "sync.txt"
    assert in_fork(printed, sync, trials.runs) == 0, printed.read_text()
    by_name = {run["tags"]["mlmodeldev.trial"]: run for run in reader.runs(trials.runs)}
    assert by_name.keys() == {"broken", "lonely"}
    for ended in (broken, lonely):
        run = by_name[ended.folder.name]
        is_whole(run, ended.folder)
        assert (run["status"], len(run["models"])) == ("FINISHED", 1)
        assert len([each for each in run["artifacts"] if each.endswith(".png")]) == 4
        assert ended.record["mlflow_uploaded"] is True
