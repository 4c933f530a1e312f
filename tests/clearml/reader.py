"""ClearML's own library in a process of its own: what it reads back of tasks, as plain values.

The packages lie in .venv-extras (``make .venv-extras``), behind those of the environment; the tests
themselves run without them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / ".venv-extras"
API = "2.23"
"""Newest version of the API that the client knows."""


def use_clearml(environment: dict[str, str]) -> None:
    """Let this process import ClearML, and lead it to a server that is not the user's own."""
    if str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))
    for name in [name for name in os.environ if name.startswith(("CLEARML_", "TRAINS_"))]:
        del os.environ[name]
    os.environ.update({"CLEARML_CONFIG_FILE": "/nonexistent/clearml.conf", **environment})


class Reader:
    """Calls functions of this file where ClearML can be imported.

    Args:
        environment: leads the client to a server.
        cache: folder for what it fetches.
    """

    def __init__(self, environment: dict[str, str], cache: Path) -> None:
        context = multiprocessing.get_context("spawn")
        given = {**environment, "CLEARML_CACHE_DIR": str(cache)}
        self._pool = ProcessPoolExecutor(
            1, mp_context=context, initializer=use_clearml, initargs=(given,)
        )

    def task(self, task_id: str) -> dict[str, Any]:
        """Return what ClearML says of a task."""
        return self._pool.submit(read_task, task_id).result(120)

    def model(self, model_id: str) -> Path:
        """Return the folder that ClearML unpacks a model's files into."""
        return self._pool.submit(fetch_model, model_id).result(120)

    def import_session(self, file: Path) -> str:
        """Import an offline session; return the new task's id."""
        return self._pool.submit(import_session, str(file)).result(120)

    def misfits(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """Return the calls that ClearML's own schema of its API does not take, and why."""
        return self._pool.submit(misfits, list(calls)).result(120)

    def close(self) -> None:
        self._pool.shutdown()


def read_task(task_id: str) -> dict[str, Any]:
    from clearml import Task

    task = Task.get_task(task_id=task_id)
    charts = task.get_reported_scalars(max_samples=0)
    return {
        "id": task.id,
        "name": task.name,
        "project": task.get_project_name(),
        "status": str(task.status),
        "tags": list(task.get_tags() or ()),
        "comment": task.comment,
        "params": task.get_parameters(),
        "script": task.data.script.to_dict() if task.data.script else {},
        "config": task.get_configuration_object("config.yaml"),
        "metrics": {
            title if title == series else f"{title}/{series}": _pairs(values)
            for title, inner in charts.items()
            for series, values in inner.items()
        },
        "single": task.get_reported_single_values(),
        "inputs": [_plain(model) for model in task.models["input"]],
        "outputs": [_plain(model) for model in task.models["output"]],
    }


def _pairs(values: Any) -> list[tuple[int, float]]:
    return [*zip(values["x"], values["y"], strict=True)]


def _plain(model: Any) -> dict[str, Any]:
    about = {name: entry["value"] for name, entry in model.get_all_metadata().items()}
    return {
        "id": model.id,
        "name": model.name,
        "url": model.url,
        "labels": dict(model.labels or {}),
        "about": about,
    }


def fetch_model(model_id: str) -> Path:
    from clearml import Model

    return Path(Model(model_id=model_id).get_local_copy(raise_on_error=True))


def import_session(file: str) -> str:
    from clearml import Task

    return str(Task.import_offline_session(file))


def misfits(calls: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    from importlib import import_module

    import jsonschema

    wrong = []
    for name, content in calls:
        service, _, action = name.partition(".")
        module = import_module(f"clearml.backend_api.services.v{API.replace('.', '_')}.{service}")
        if name == "events.add_batch":
            kinds = {"training_stats_scalar": "MetricsScalarEvent", "plot": "MetricsPlotEvent"}
            kinds |= {"training_debug_image": "MetricsImageEvent", "log": "TaskLogEvent"}
            parts = [(getattr(module, kinds[e["type"]])._schema, e) for e in content["events"]]
        else:
            requests = [
                each
                for each in vars(module).values()
                if getattr(each, "_action", None) == action and each.__name__.endswith("Request")
            ]
            parts = [(requests[0]._schema, content)]
        for schema, part in parts:
            extra = {*part} - {*schema["properties"], "method"}  # the client's own objects send it
            try:
                jsonschema.validate(part, schema)
            except jsonschema.ValidationError as error:
                wrong.append(f"{name}: {error.message[:200]}")
            if extra:
                wrong.append(f"{name}: has {sorted(extra)}")
    return wrong
