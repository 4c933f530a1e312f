"""At which steps ClearML is sent what it lacks, by the rules of its server and without its package.

A server says of a task the highest step of anything: of rows, of models, of the user's reports.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking import clearml_logger, clearml_task
from mlmodeldev.tracking.behind import send_missing
from mlmodeldev.tracking.clearml_logger import ClearmlTrialLogger
from mlmodeldev.tracking.clearml_server import ServerError
from mlmodeldev.tracking.clearml_sync import CLEARML
from mlmodeldev.tracking.metrics_csv import MetricsFile
from mlmodeldev.trial.folder import TrialFolder
from tests.clearml.store import Refusal, Store


class Server:
    """Hands calls to the store; ``away``: gives no answer."""

    store, away = Store(), False

    def call(self, service: str, action: str, **content: Any) -> dict[str, Any]:
        if self.away:
            raise ConnectionError("nobody is there")
        try:
            return self.store.answer(f"{service}.{action}", content)
        except Refusal as refusal:
            raise ServerError(400, str(refusal)) from None

    def send_events(self, events: Sequence[dict[str, Any]]) -> None:
        self.call("events", "add_batch", events=[*events])

    def upload(self, file: Path, key: str) -> str:
        return f"http://files/{key}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> type[Server]:
    made = type("Server", (Server,), {"store": Store(), "away": False})
    monkeypatch.setitem(sys.modules, "clearml", types.ModuleType("clearml"))
    monkeypatch.setattr(clearml_task, "Server", made)
    monkeypatch.setattr(clearml_logger, "is_configured", lambda: True)
    monkeypatch.setattr(clearml_logger, "server_answers", lambda seconds: True)
    monkeypatch.setattr(clearml_logger, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(clearml_logger, "RETRY_SECONDS", 0.0)
    for name in ("CLEARML_OFFLINE_MODE", "CLEARML_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    return made


class Trial:
    """Logs rows to a tracker and to metrics.csv, as training does, and exports a model."""

    def __init__(self, runs: Path, step: int = 0) -> None:
        settings = compose_settings(["logger=clearml", f"artefacts.runs_dir={runs}"])
        self.folder = TrialFolder.open(settings)
        self.tracker = ClearmlTrialLogger(settings, self.folder)
        assert self.tracker._background.drain(10)
        self.file = MetricsFile(self.folder.path / "metrics.csv")
        for logger in (self.file, self.tracker):
            logger.resume_from(step)

    def log(self, steps: range) -> None:
        for step in steps:
            for logger in (self.tracker, self.file):
                logger.log_metrics({"train/loss": 1 / (1 + step)}, step)

    def end(self) -> bool:
        best = self.folder.path / "best"
        best.mkdir(exist_ok=True)
        (best / "weights").write_text(str(self.tracker._step))
        self.folder.update(state="done", metric={"name": "val/accuracy", "value": 0.5})
        return bool(self.tracker.end("done", [best]))


def task_of(server: type[Server]) -> dict[str, Any]:
    (task,) = server.store.tasks.values()
    return task


def losses(server: type[Server]) -> list[tuple[int, float]]:
    events = server.store.events[task_of(server)["id"]].values()
    return sorted((e["iter"], e["value"]) for e in events if e.get("variant") == "loss")


def expected(steps: int) -> list[tuple[int, float]]:
    return [(step, 1 / (1 + step)) for step in range(steps)]


def test_what_is_sent_after_the_end_goes_to_the_last_rows_step(
    server: type[Server], tmp_path: Path
) -> None:
    first = Trial(tmp_path)
    first.log(range(4))
    assert first.tracker._background.drain(10)
    server.away = True
    assert first.end() is False
    server.away = False

    assert send_missing(CLEARML, first.tracker.settings, first.folder)
    calls = server.store.calls
    models = [content for name, content in calls if name == "tasks.add_or_update_model"]
    assert [content["iteration"] for content in models] == [3]
    assert task_of(server)["last_iteration"] == 3

    longer = Trial(tmp_path, step=4)
    longer.log(range(4, 8))
    assert longer.end() is True
    assert losses(server) == expected(8)
    assert task_of(server)["last_iteration"] == 7


def test_a_task_whose_last_step_is_no_rows_gets_what_it_lacks(
    server: type[Server], tmp_path: Path
) -> None:
    """As a model sent at a step beyond all rows has left it, or a report of the user's."""
    first = Trial(tmp_path)
    first.log(range(4))
    assert first.end() is True
    task_of(server)["last_iteration"] = sys.maxsize
    events = server.store.events[task_of(server)["id"]]
    for lost in [identity for identity, event in events.items() if event["iter"] == 2]:
        del events[lost]

    longer = Trial(tmp_path, step=4)
    longer.log(range(4, 8))
    assert longer.end() is True
    assert losses(server) == expected(8)


def test_a_task_that_goes_on_is_not_sent_all_rows_again(
    server: type[Server], tmp_path: Path
) -> None:
    first = Trial(tmp_path)
    first.log(range(6))
    assert first.tracker.end("interrupted") is True
    before = len(server.store.calls)
    again = Trial(tmp_path, step=4)
    again.log(range(4, 8))
    assert again.end() is True
    sent = [
        event["iter"]
        for name, content in server.store.calls[before:]
        if name == "events.add_batch"
        for event in content["events"]
        if event.get("variant") == "loss"
    ]
    assert sorted({*sent}) == [5, 6, 7]
    assert losses(server) == expected(8)
