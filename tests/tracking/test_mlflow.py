"""What is MLflow's own: a sweep's runs lie below one, and a server may be away.

What it promises as every tracker does is in ``test_promises.py``. MLflow's own library reads back
what is there; ``make test`` makes the folder that it lies in.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlmodeldev.tracking.mlflow_names import metric_name
from tests.conftest import TrialResult, Trials
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
    "callbacks.cka.enabled=false",
)


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    yield reader
    reader.close()


def at_once() -> None:
    """In a trial's process: rows are sent when they come."""
    use_mlflow()
    from mlmodeldev.tracking import mlflow_logger

    mlflow_logger.GATHER_SECONDS = 0.0


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


def test_two_trials_begin_a_sweep_at_once(trials: Trials, reader: Reader) -> None:
    small = (*SMALL, "artefacts.sweep=digits")

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
    (first, *_) = [run for run in inner if run["models"]]  # the best so far is kept
    folder = trials.runs / "digits" / first["tags"]["mlmodeldev.trial"]
    source, copy = reader.register_trial(trials.runs, folder)
    assert source == f"models:/{first['models'][0][1]}", "the run's logged model is the version"
    assert contents(copy) == contents(folder / "best")


def away() -> None:
    """In a trial's process: the server's address is one where nobody answers."""
    at_once()
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"


def test_a_server_that_is_away_harms_no_trial(trials: Trials) -> None:
    ended = trials.run(*SMALL, "training.max_epochs=1", patch=away)
    assert ended.code == 0, ended.output
    assert ended.output.count("MLflow: does not take the trial's rows") == 1
    assert (ended.record["state"], ended.record["mlflow_uploaded"]) == ("done", False)
