"""What ClearML is sent, and when, without ClearML: names, sessions, keys, packages, processes."""

from __future__ import annotations

import json
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking.clearml_content import (
    file_key,
    parameters,
    task_content,
    title_and_series,
)
from mlmodeldev.tracking.clearml_logger import ClearmlTrialLogger, why_offline
from mlmodeldev.tracking.clearml_model import labels
from mlmodeldev.tracking.clearml_sync import awaits_clearml
from mlmodeldev.tracking.loggers import make_loggers
from mlmodeldev.tracking.metadata import models_to_keep
from mlmodeldev.tracking.metrics_csv import MetricsFile
from mlmodeldev.trial.folder import TrialFolder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is there, of which nothing is used."""
    monkeypatch.setitem(sys.modules, "clearml", types.ModuleType("clearml"))


def open_trial(runs: Path, *overrides: str) -> tuple[Any, TrialFolder]:
    settings = compose_settings(["logger=clearml", f"artefacts.runs_dir={runs}", *overrides])
    return settings, TrialFolder.open(settings)


# --- sessions


class Trial:
    """Logs rows to a session and to metrics.csv, as training does."""

    def __init__(self, runs: Path, step: int = 0) -> None:
        settings, self.folder = open_trial(runs, "logger.clearml.offline=true", "optimizer.lr=0.25")
        self.tracker = ClearmlTrialLogger(settings, self.folder)
        self.file = MetricsFile(self.folder.path / "metrics.csv")
        for logger in (self.tracker, self.file):
            logger.resume_from(step)

    def log(self, steps: range) -> None:
        for step in steps:
            for logger in (self.tracker, self.file):
                logger.log_metrics({"train/loss": 1 / (1 + step)}, step)
            if step % 4 == 0:
                self.tracker.log_histogram("weights", [0.0, step], step)
        assert self.tracker._background.drain(10)


def session_of(folder: TrialFolder) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    with zipfile.ZipFile(folder.path / "clearml-offline.zip") as packed:
        lines = packed.read("metrics.jsonl").decode().splitlines()
        return json.loads(packed.read("task.json")), [e for li in lines for e in json.loads(li)]


@pytest.mark.usefixtures("installed")
def test_a_session_has_each_value_once_whatever_came_between(tmp_path: Path) -> None:
    killed = Trial(tmp_path)
    killed.log(range(7))  # and no end
    stopped = Trial(tmp_path, step=5)  # the checkpoint's
    stopped.log(range(5, 9))
    assert stopped.tracker.end("interrupted") is False
    assert session_of(stopped.folder)[0]["tags"] == ["interrupted"]
    ended = Trial(tmp_path, step=8)
    ended.log(range(8, 12))
    best = ended.folder.path / "best"
    best.mkdir()
    assert ended.tracker.end("done", [best]) is False, "no server has it yet"

    content, events = session_of(ended.folder)
    losses = [(e["iter"], e["value"]) for e in events if e["variant"] == "loss"]
    assert losses == [(step, 1 / (1 + step)) for step in range(12)]
    assert [e["iter"] for e in events if e["type"] == "plot"] == [0, 4, 8]
    assert (
        {e["task"] for e in events} == {content["id"]} == {ended.folder.read()["clearml_offline"]}
    )
    assert (content["tags"], content["name"]) == ([], "lr=0.25")
    assert content["hyperparams"]["optimizer"]["lr"]["value"] == "0.25"
    assert content["offline_output_models"][0]["weights"]["register_uri"] == best.as_uri()
    assert not (ended.folder.path / ".clearml-offline").exists()


def test_why_nothing_is_sent(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = compose_settings(["logger=clearml", "logger.clearml.offline=true"])
    assert why_offline(settings) == "logger.clearml.offline=true"
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    assert why_offline(settings, goes_online=True) == "CLEARML_OFFLINE_MODE is set"


# --- names and values


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("train/loss", ("train", "loss")),
        ("cka/image.layers.0~text.layers.0", ("cka", "image.layers.0~text.layers.0")),
        ("cka/towers/mean", ("cka", "towers/mean")),
        ("epoch", ("epoch", "epoch")),
        ("/loss", ("/loss", "/loss")),
    ],
)
def test_charts_are_named_as_metrics_are(name: str, shown: tuple[str, str]) -> None:
    assert title_and_series(name) == shown


@given(st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=3), st.text(max_size=300))
def test_every_key_is_one_that_a_store_of_files_takes(parts: list[str], name: str) -> None:
    import re

    task = "offline-" + 32 * "a"
    key = file_key("mlmodeldev/digits", name, task, parts)
    assert re.fullmatch(r"[\w.=~/-]+", key)
    assert f".{task}/" in key, "by which ClearML's import knows the task"
    assert max(map(len, key.split("/"))) <= 255


def test_a_copy_of_a_task_is_run_by_the_same_command(tmp_path: Path) -> None:
    given = ("optimizer.lr=0.25", "optimizer.betas=[0.8, 0.9]", "artefacts.trial=t")
    content = task_content(*open_trial(tmp_path, *given))
    entry = content["script"]["entry_point"].split()
    assert entry[:2] == ["-m", "trainer"]
    assert {"logger=clearml", "optimizer.lr=0.25"} <= {*entry}
    assert not any(word.startswith("artefacts") for word in entry)
    assert content["script"]["diff"] == ""


def test_no_key_is_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "a-very-secret-value-1234")
    made = parameters({"note": {"text": "uses a-very-secret-value-1234"}, "seed": 3})
    assert "very-secret" not in json.dumps(made)
    assert made["General"]["seed"]["value"] == "3"


def test_labels_are_those_of_the_exported_model(tmp_path: Path) -> None:
    assert labels(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"label2id": {"cat": 0, "dog": 1}}')
    assert labels(tmp_path) == {"cat": 0, "dog": 1}


# --- packages, processes, settings


def test_without_the_package_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "clearml", None)
    for more in ("logger.clearml.offline=true", "logger.clearml.offline=false"):
        with pytest.raises(UsageError, match=r"pip install 'clearml>=2\.1'"):
            make_loggers(*open_trial(tmp_path, more))


def test_only_the_first_process_talks_to_clearml(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("clearml", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    both = compose_settings(["logger=[mlflow,clearml]", f"artefacts.runs_dir={tmp_path}"])
    loggers = make_loggers(both, TrialFolder.open(both), first=False)
    assert [logger.name for logger in loggers] == ["mlflow", "clearml", "metrics"]


def test_clearml_keeps_best_alone(tmp_path: Path) -> None:
    for name in ("best", "last"):
        (tmp_path / name).mkdir()
    settings = compose_settings(["logger=clearml"])
    assert models_to_keep(settings, tmp_path, "done", "clearml") == [tmp_path / "best"]
    assert models_to_keep(settings, tmp_path, "pruned", "clearml") == []


def test_a_session_that_no_server_has_awaits_one(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("logger:\n  clearml:\n    offline: true\n")
    assert not awaits_clearml(tmp_path, {"state": "failed"})
    assert awaits_clearml(tmp_path, {"state": "failed", "clearml_offline": "offline-1"})
    record = {"state": "done", "clearml_task": "t", "clearml_key": "k"}
    assert awaits_clearml(tmp_path, {**record, "clearml_uploaded": False})
    assert not awaits_clearml(tmp_path, {**record, "clearml_uploaded": True})
