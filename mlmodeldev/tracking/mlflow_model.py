"""``best/`` as a logged model of MLflow: files that its registry takes, without its flavours.

MLflow's own ``log_model`` exports the network anew and guesses what it needs, which takes longer
than small trials do. ``best/`` is whole as it is; a file ``MLmodel`` beside it says so.

Example::

    model = keep_model(run, folder / "best", record, step=900)
    client.create_model_version("digits", f"models:/{model}", run_id=run.id, model_id=model)
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from mlmodeldev.tracking.mlflow_names import tags
from mlmodeldev.tracking.mlflow_run import TrialRun
from mlmodeldev.tracking.mlflow_store import Store
from mlmodeldev.tracking.registry_folder import folder_digest

DIGEST = "mlmodeldev.digest"
"""Tag of a logged model: SHA-256 over the names and contents of its files."""
FLAVOR = "mlmodeldev"
"""Name in the ``MLmodel`` file of how the folder is to be read: by `mlmodeldev.load`."""
_WHOLE = "READY"


def keep_model(run: TrialRun, folder: Path, record: Mapping[str, Any], step: int) -> str:
    """Keep a folder as a logged model of the run, unless MLflow has it; return the model's id.

    What an upload that was cut off has left is removed.

    Args:
        run: the trial's.
        folder: ``best``; its name is the model's.
        record: the trial's ``trial.json``.
        step: optimizer step that the trial ended with.
    """
    digest = folder_digest(folder)
    for former in _models_of(run):
        if former.name == folder.name and str(former.status) != _WHOLE:
            run.client.delete_logged_model(former.model_id)
        elif former.tags.get(DIGEST) == digest:
            return str(former.model_id)
    about = tags(_about(record), "mlmodeldev")
    model = log_folder(run.store, folder, digest, about, run.id)
    _show_in_run(run, model.model_id, step)
    return str(model.model_id)


def logged_folder(store: Store, digest: str) -> Any:
    """Return the logged model of the experiment that has a folder's content; None: none has it."""
    models = _with_digest(store, digest, store.experiment)
    return next((model for model in models if str(model.status) == _WHOLE), None)


def log_folder(
    store: Store, folder: Path, digest: str, about: Mapping[str, str], run_id: str | None = None
) -> Any:
    """Make a folder a logged model, of a run or of none; return the model.

    One whose upload was cut off is gone on with.
    """
    client = store.client
    model = _begun(store, digest, run_id) or client.create_logged_model(
        store.experiment,
        name=folder.name,
        source_run_id=run_id,
        model_type=FLAVOR,
        tags={DIGEST: digest, **about},
    )
    client.log_model_artifacts(model.model_id, str(folder))
    with tempfile.TemporaryDirectory() as scratch:
        described = Path(scratch) / "MLmodel"
        described.write_text(_description(run_id, model))
        client.log_model_artifact(model.model_id, str(described))
    return client.finalize_logged_model(model.model_id, _WHOLE)


def _begun(store: Store, digest: str, run_id: str | None) -> Any:
    for model in _with_digest(store, digest, store.experiment):
        if (model.source_run_id or None) == run_id and str(model.status) != _WHOLE:
            return model
    return None


def _with_digest(store: Store, digest: str, experiment: str) -> list[Any]:
    has_it = f"tags.`{DIGEST}` = '{digest}'"
    return list(store.client.search_logged_models([experiment], filter_string=has_it))


def _models_of(run: TrialRun) -> list[Any]:
    of_run = f"source_run_id = '{run.id}'"
    return list(run.client.search_logged_models([run.store.experiment], filter_string=of_run))


def _about(record: Mapping[str, Any]) -> dict[str, Any]:
    metric = record.get("metric") or {}
    return {
        "trial": record.get("id"),
        "sweep": record.get("sweep"),
        "sha": record.get("sha"),
        "metric": metric.get("name"),
        "value": metric.get("value"),
    }


def _description(run_id: str | None, model: Any) -> str:
    import mlflow

    content = {
        "artifact_path": model.artifact_location,
        "flavors": {FLAVOR: {"loader": "mlmodeldev.load", "data": "."}},
        "mlflow_version": mlflow.__version__,
        "model_id": model.model_id,
        "model_uuid": model.model_id,
        "run_id": run_id,
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    return yaml.safe_dump(content, sort_keys=False)


def _show_in_run(run: TrialRun, model_id: str, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    run.client.log_outputs(run.id, [LoggedModelOutput(model_id, step)])
