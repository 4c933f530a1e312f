"""Runs of MLflow, read by its own library; ``make test`` makes the folder that it lies in."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from mlmodeldev.tracking.mlflow_names import metric_name
from tests.tracking.mlflow_reader import Reader, use_mlflow
from tests.tracking.trackers.shown import Entrance, Shown, Tracker, digest, nothing


class Mlflow(Tracker):
    """Runs of ``logger=mlflow`` in the file of a folder of runs."""

    name = "mlflow"
    models = ("best",)
    statuses: ClassVar = {
        "done": "FINISHED",
        "pruned": "FINISHED",
        "failed": "FAILED",
        "interrupted": "KILLED",
    }
    once = True
    away = "MLflow: does not take the trial's rows"
    catches_up = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reader = Reader()
        folder.mkdir(parents=True)
        assert self.reader.runs(folder) == []  # and makes the tables, which takes seconds

    def prepare(self, runs: Path) -> None:
        runs.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / "mlflow.db", runs)

    def entrance(self) -> Entrance:
        return enter, ()

    def breakage(self, trial: Path) -> Entrance:
        """The database is none."""
        (trial.parents[1] / "mlflow.db").write_text("this is no database\n" * 100)
        return nothing, ()

    def repair(self, runs: Path) -> None:
        self.prepare(runs)

    def spelled(self, metric: str) -> str:
        return metric_name(metric)

    def run(self, trial: Path) -> dict[str, Any]:
        """Return the one run of a trial."""
        runs = self.reader.runs(trial.parents[1])
        (run,) = [each for each in runs if each["tags"]["mlmodeldev.trial"] == trial.name]
        return run

    def read(self, trial: Path) -> Shown:
        run = self.run(trial)
        fronts = ("time/", "best/")
        own = {n: v for n, v in run["metrics"].items() if not n.startswith(fronts)}
        keys = Counter(map(_key, run["artifacts"]))
        return Shown(
            settings=run["params"],
            metrics=own,
            pictures={key: number for key, number in keys.items() if key},
            models={name: self._weights(trial, model) for name, model, _ in run["models"]},
            status=run["status"],
        )

    def _weights(self, trial: Path, model: str) -> str:
        (file,) = (trial.parents[1] / ".mlflow-artifacts").glob(f"**/{model}/**/model.safetensors")
        return digest(file.read_bytes())

    def check_more(self, trial: Path) -> None:
        """Best value, origin, tables; and what the registry's alias names is the model."""
        run, record = self.run(trial), json.loads((trial / "trial.json").read_text())
        assert (run["id"], record["mlflow_uploaded"]) == (record["mlflow_run"], True)
        best = record["metric"]
        assert [value for _, value in run["metrics"][f"best/{best['name']}"]] == [best["value"]]
        assert run["tags"]["mlmodeldev.trial.sha"] == record["sha"]
        tables = {f"cka/{file.parent.name}/matrix.json" for file in trial.glob("cka/*/*.png")}
        assert {*tables, "val/samples.json", "config.yaml"} <= {*run["artifacts"]}
        ((name, model, status),) = run["models"]
        assert (name, status) == ("best", "READY")
        fetched = self.reader.register(trial.parents[1], model, trial / "fetched")
        assert _contents(fetched) == _contents(trial / "best")

    def close(self) -> None:
        self.reader.close()


def _key(artifact: str) -> str:
    """Return the key that a picture was logged under; empty: it is none."""
    if re.fullmatch(r"cka/\w+/epoch-\d+\.png", artifact):
        return f"{posixpath.dirname(artifact)}/heatmap"
    return posixpath.dirname(artifact) if artifact.endswith(".png") else ""


def _contents(folder: Path) -> dict[str, bytes]:
    of_mlflow = ("MLmodel", "registered_model_meta")
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name not in of_mlflow}


def enter() -> None:
    """In a trial's process: rows are sent when they come."""
    use_mlflow()
    from mlmodeldev.tracking import mlflow_logger

    mlflow_logger.GATHER_SECONDS = 0.0
