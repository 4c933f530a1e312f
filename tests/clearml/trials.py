"""Trials that write to the stand-in, and what has to be there of them then."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.clearml.reader import use_clearml
from tests.clearml.server import Server

Environment = dict[str, str]


def at_once(environment: Environment) -> None:
    """In a trial's process: the client's, and rows are sent when they come."""
    use_clearml(environment)
    from mlmodeldev.tracking import clearml_logger

    clearml_logger.GATHER_SECONDS = 0.0
    clearml_logger.SIGN_SECONDS = 20.0  # a busy machine is not a server that is away


def is_whole(task: dict[str, Any], folder: Path) -> None:
    """ClearML has the numbers of metrics.csv: each once, in the order of the steps.

    What a step took was measured anew where it was trained again.
    """
    expected: dict[str, dict[int, float]] = defaultdict(dict)
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if text and name not in ("step", "time/logged"):
                    expected[name].setdefault(int(row["step"]), float(text))
    assert task["metrics"].keys() == expected.keys()
    for name, values in expected.items():
        got = sorted(tuple(pair) for pair in task["metrics"][name])
        assert [step for step, _ in got] == list(values), name
        if not name.startswith("time/"):
            assert [value for _, value in got] == list(values.values()), name


def pictures(server: Server, task_id: str) -> dict[tuple[str, int], bytes]:
    """Return a task's pictures by chart and step, as they lie in the store of files."""
    return {
        (f"{event['metric']}/{event['variant']}", event["iter"]): server.store.files[
            event["url"].removeprefix(f"{server.files_url}/").replace("%3D", "=")
        ]
        for event in server.store.events[task_id].values()
        if event["type"] == "training_debug_image"
    }
