"""Tasks of ClearML in the stand-in for its server, read by ClearML's own library."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from tests.clearml.reader import Reader, use_clearml
from tests.clearml.server import Server
from tests.clearml.trials import at_once, pictures
from tests.tracking.trackers.shown import Entrance, Shown, Tracker, digest

_NOBODY = "http://127.0.0.1:9"


class Clearml(Tracker):
    """Tasks of ``logger=clearml`` in a server that this starts."""

    name = "clearml"
    models = ("best",)
    statuses: ClassVar = {
        "done": "completed",
        "pruned": "completed",
        "failed": "failed",
        "interrupted": "stopped",
    }
    once = True
    away = "ClearML: does not take the trial's rows"
    catches_up = True

    def __init__(self, folder: Path) -> None:
        self.server = Server()
        self.reader = Reader(self.server.environment(), folder)

    def entrance(self) -> Entrance:
        return at_once, (self.server.environment(),)

    def breakage(self, trial: Path) -> Entrance:
        """Nobody answers."""
        names = ("CLEARML_API_HOST", "CLEARML_WEB_HOST", "CLEARML_FILES_HOST")
        return use_clearml, ({**self.server.environment(), **dict.fromkeys(names, _NOBODY)},)

    def task(self, trial: Path) -> dict[str, Any]:
        """Return the task of a trial, as ClearML's library reads it."""
        record = json.loads((trial / "trial.json").read_text())
        return self.reader.task(record["clearml_task"])

    def read(self, trial: Path) -> Shown:
        task = self.task(trial)
        charts = {n: v for n, v in task["metrics"].items() if not n.startswith("time/")}
        return Shown(
            settings={name.replace("/", ".", 1): text for name, text in task["params"].items()},
            metrics={name: sorted(map(tuple, values)) for name, values in charts.items()},
            pictures=dict(Counter(key for key, _ in pictures(self.server, task["id"]))),
            models={one["name"]: self._weights(one["id"]) for one in self._models(task)},
            status=task["status"],
        )

    def _models(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**one, "name": "best"} for one in task["outputs"]]

    def _weights(self, model: str) -> str:
        return digest((self.reader.model(model) / "model.safetensors").read_bytes())

    def check_more(self, trial: Path) -> None:
        """No call was made that the server does not know, or that ClearML's schema refuses."""
        record = json.loads((trial / "trial.json").read_text())
        assert record["clearml_uploaded"] is True
        assert self.server.store.unknown == []
        assert self.reader.misfits(self.server.store.calls) == []

    def close(self) -> None:
        self.reader.close()
        self.server.__exit__()
