"""MLflow's own library in a process of its own: what it says of runs, as plain values.

The packages lie in .venv-extras (``make .venv-extras``), behind those of the environment; the tests
themselves run without them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / ".venv-extras"


def use_mlflow() -> None:
    """Let this process import MLflow."""
    if str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"


class Reader:
    """Calls functions of this file where MLflow can be imported."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=use_mlflow)

    def runs(self, runs_dir: Path) -> list[dict[str, Any]]:
        """Return all runs of the database in a folder of runs."""
        return self._pool.submit(read_runs, address(runs_dir)).result(120)

    def register(self, runs_dir: Path, model: str, target: Path) -> Path:
        """Register a logged model, and fetch what its alias names."""
        return self._pool.submit(register, address(runs_dir), model, target).result(120)

    def register_trial(self, runs_dir: Path, trial: Path) -> tuple[str, Path]:
        """Register a trial by our command's way; return its logged model, and a copy of it."""
        return self._pool.submit(register_trial, runs_dir, trial).result(120)

    def close(self) -> None:
        self._pool.shutdown()


def address(runs_dir: Path) -> str:
    return f"sqlite:///{runs_dir}/mlflow.db"


def read_runs(uri: str) -> list[dict[str, Any]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments)
    models = client.search_logged_models(experiments)
    return [_plain(client, run, models) for run in sorted(runs, key=lambda r: r.info.start_time)]


def _plain(client: Any, run: Any, models: Any) -> dict[str, Any]:
    run_id = run.info.run_id
    return {
        "id": run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "tags": run.data.tags,
        "params": run.data.params,
        "metrics": {
            name: [(each.step, each.value) for each in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "artifacts": sorted(_files(client, run_id, None)),
        "models": [
            (model.name, model.model_id, str(model.status))
            for model in models
            if model.source_run_id == run_id
        ],
    }


def _files(client: Any, run_id: str, folder: str | None) -> list[str]:
    listed = client.list_artifacts(run_id, folder)
    inner = [file for each in listed if each.is_dir for file in _files(client, run_id, each.path)]
    return inner + [each.path for each in listed if not each.is_dir]


def register(uri: str, model: str, target: Path) -> Path:
    import mlflow
    from mlflow.models import Model
    from mlflow.tracking import MlflowClient

    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    name = f"of-{model}"
    client.create_registered_model(name)
    version = client.create_model_version(name, f"models:/{model}", model_id=model)
    client.set_registered_model_alias(name, "champion", version.version)
    fetched = mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=str(target))
    assert Model.load(fetched).model_id == model
    return Path(fetched)


def register_trial(runs_dir: Path, trial: Path) -> tuple[str, Path]:
    from mlmodeldev.tracking import registered_trial
    from mlmodeldev.tracking.registry import open_registry

    registry = open_registry(runs_dir, "mlflow")
    version, is_new = registered_trial.register_trial(registry, "ours", trial)
    assert is_new
    return version.model, registry.model("ours", version.number)
