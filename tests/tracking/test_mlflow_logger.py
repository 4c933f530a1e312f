"""What is sent to MLflow, and when, without MLflow: a store that fails, names, keys, addresses."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking import mlflow_logger, mlflow_store
from mlmodeldev.tracking.behind import send_missing
from mlmodeldev.tracking.loggers import make_loggers
from mlmodeldev.tracking.metadata import models_to_keep
from mlmodeldev.tracking.metrics_csv import MetricsFile
from mlmodeldev.tracking.mlflow_logger import MlflowTrialLogger
from mlmodeldev.tracking.mlflow_names import LONGEST_KEY, metric_name, parameters, shown
from mlmodeldev.tracking.mlflow_run import TimedRow, TrialRun
from mlmodeldev.tracking.mlflow_store import cause
from mlmodeldev.tracking.mlflow_sync import MLFLOW, awaits_mlflow
from mlmodeldev.trial.folder import TrialFolder


@dataclass
class Client:
    """Keeps every value that it is sent, also twice; fails when it is told to."""

    values: list[tuple[str, int, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def log_batch(self, run: str, metrics: Any = (), **rest: Any) -> None:
        failure = self.failures.pop(0) if self.failures else ""
        assert len(metrics) <= 1000
        if failure != "before":
            self.values += [(each.key, each.step, each.value) for each in metrics]
        if failure:
            raise ConnectionError(f"{failure}: https://me:hunter2@host gives no answer")

    def get_run(self, run: str) -> Any:
        last: dict[str, int] = {}
        for key, step, _ in self.values:
            last[key] = max(step, last.get(key, 0))
        metrics = [SimpleNamespace(key=key, step=step) for key, step in last.items()]
        data = SimpleNamespace(to_proto=lambda: SimpleNamespace(metrics=metrics))
        return SimpleNamespace(data=data)

    def log_artifact(self, *given: Any) -> None:
        pass

    def list_artifacts(self, *given: Any) -> list[Any]:
        return []

    def set_tag(self, *given: Any) -> None:
        pass

    def set_terminated(self, run: str, status: str) -> None:
        self.ends.append(status)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    entities: Any = types.ModuleType("mlflow.entities")
    entities.Metric = lambda key, value, timestamp, step: SimpleNamespace(
        key=key, value=value, timestamp=timestamp, step=step
    )
    entities.RunTag = lambda key, value: (key, value)
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    client = Client()
    store: Any = SimpleNamespace(client=client, experiment="1")

    def open_run(settings: Any, folder: Any) -> TrialRun:
        run = TrialRun(store, "run1", begun_anew=False)
        run.refresh()
        return run

    monkeypatch.setattr(TrialRun, "open", open_run)
    monkeypatch.setattr(mlflow_logger, "import_client", lambda: None)
    monkeypatch.setattr(mlflow_logger, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(mlflow_logger, "RETRY_SECONDS", 0.0)
    return client


class Trial:
    """Logs rows to a tracker and to metrics.csv, as training does."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        settings = compose_settings(["logger=mlflow", f"artefacts.runs_dir={folder}"])
        self.folder = TrialFolder.open(settings)
        self.tracker = MlflowTrialLogger(settings, self.folder)
        self.file = MetricsFile(self.folder.path / "metrics.csv")
        self.took = float(step)
        for logger in (self.tracker, self.file):
            logger.resume_from(step)

    def log(self, steps: range, wait: bool = False) -> None:
        for step in steps:
            for logger in (self.tracker, self.file):
                row = {"train/loss": 1 / (1 + step), "epoch": step // 4, "time/step": self.took}
                logger.log_metrics(row, step)
            if wait:
                self.tracker._background.drain(10)


def whole(client: Client, steps: int) -> bool:
    expected = [(s, 1 / (1 + s)) for s in range(steps)]
    return [(step, value) for key, step, value in client.values if key == "train/loss"] == expected


@pytest.mark.parametrize("kind", ["before", "after"], ids=["refused", "answer lost"])
def test_a_store_that_fails_for_a_while_gets_each_value_once(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    trial = Trial(tmp_path)
    trial.log(range(3), wait=True)
    client.failures += [kind] * 4
    trial.log(range(3, 9), wait=True)
    trial.log(range(9, 12))
    assert trial.tracker.end("done") is True
    assert whole(client, 12), client.values
    assert client.ends == ["FINISHED"]
    warnings = capsys.readouterr().err
    assert warnings.count("MLflow: does not take the trial's rows") == warnings.count("\n") == 1
    assert "https://***@host" in warnings


def test_rows_of_a_long_outage_come_from_the_file(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_logger, "MOST_WAITING", 10)
    trial = Trial(tmp_path)
    client.failures += ["before"] * 50
    trial.log(range(50), wait=True)
    assert len(trial.tracker._rows) <= 10
    client.failures.clear()
    trial.log(range(50, 53))
    assert trial.tracker.end("done") is True
    assert whole(client, 53)


def test_what_is_missing_after_all_the_next_attempt_sends(client: Client, tmp_path: Path) -> None:
    first = Trial(tmp_path)
    first.log(range(4), wait=True)
    client.failures += ["before"] * 100
    first.log(range(4, 8))
    assert first.tracker.end("interrupted") is False
    client.failures.clear()
    again = Trial(tmp_path, step=6)  # the checkpoint's; steps 6 and 7 are trained again
    again.log(range(6, 10))
    assert again.tracker.end("pruned") is True
    assert whole(client, 10)
    assert client.ends[-1] == "FINISHED"
    took = {step: value for key, step, value in client.values if key == "time/step"}
    assert [took[step] for step in range(4, 8)] == [0, 0, 6, 6], "of the attempt that counts"


def test_what_is_sent_after_the_end_goes_to_the_last_rows_step(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[int] = []
    monkeypatch.setattr(mlflow_logger, "keep_model", lambda *given: models.append(given[-1]))
    first = Trial(tmp_path)
    first.log(range(4), wait=True)
    (first.folder.path / "best").mkdir()
    first.folder.update(state="done", metric={"name": "val/accuracy", "value": 0.5})
    client.failures += ["before"] * 100
    assert first.tracker.end("done", [first.folder.path / "best"]) is False
    client.failures.clear()
    models.clear()

    assert send_missing(MLFLOW, first.tracker.settings, first.folder)
    best = [(step, value) for key, step, value in client.values if key == "best/val/accuracy"]
    assert (best, models) == ([(3, 0.5)], [3])

    longer = Trial(tmp_path, step=4)
    longer.log(range(4, 8))
    longer.folder.update(metric={"name": "val/accuracy", "value": 0.75})
    assert longer.tracker.end("done", [longer.folder.path / "best"]) is True
    best = [(step, value) for key, step, value in client.values if key == "best/val/accuracy"]
    assert (best, models) == ([(3, 0.5), (7, 0.75)], [3, 7])


def test_rows_go_whole_and_a_thousand_values_at_a_time(client: Client) -> None:
    run = TrialRun(SimpleNamespace(client=client, experiment="1"), "run1", begun_anew=True)  # type: ignore[arg-type]
    rows = [TimedRow({f"m{i}": step for i in range(300)}, step, 0) for step in range(7)]
    client.failures += ["", "before"]
    with pytest.raises(ConnectionError):
        run.send(rows)
    assert {step for _, step, _ in client.values} == {0, 1, 2}
    run.refresh()
    run.send(rows)
    assert len(client.values) == 2100 == len(set(client.values))


# --- names and values


@given(st.text(min_size=1, max_size=400))
def test_every_name_is_one_that_mlflow_takes(name: str) -> None:
    import posixpath
    import re

    made = metric_name(name)
    assert re.fullmatch(r"[/\w.\- :]+", made)
    assert len(made) <= LONGEST_KEY
    assert posixpath.normpath(made) == made
    assert not made.startswith(("/", "..")) and made != "."


def test_names_of_two_layers_stay_two_names() -> None:
    assert metric_name("cka/image.layers.0~text.0") == "cka/image.layers.0:text.0"
    assert metric_name("val/accuracy") == "val/accuracy"


def test_no_key_and_no_text_without_end_is_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "a-very-secret-value-1234")
    assert "very-secret" not in shown("note", "uses a-very-secret-value-1234", 6000)
    sha = "0123456789abcdef" * 2 + "01234567"
    assert shown("sha", sha, 6000) == sha
    assert len(shown("x", "y" * 10_000, 6000)) == 6000
    values = parameters(compose_settings(["optimizer.lr=0.25", "logger=mlflow"]))
    assert values["optimizer.lr"] == "0.25"
    assert not any(name.startswith(("logger", "artefacts", "overrides")) for name in values)


# --- addresses, packages, processes


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("./mlruns", "is no address of MLflow 3"),
        ("htp://host:5000", "did you mean 'http'"),
        ("sqlite://", "is no address of MLflow 3"),
        ("https://me:hunter2@host", "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_an_address_that_is_none_is_one_line(uri: str, line: str) -> None:
    with pytest.raises(UsageError, match=line) as error:
        compose_settings(["logger=mlflow", f"logger.mlflow.uri={uri}"])
    assert "hunter2" not in str(error.value) and "\n" not in str(error.value)


def test_where_runs_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = compose_settings(["logger=mlflow", f"artefacts.runs_dir={tmp_path}"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert mlflow_store.address(settings) == f"sqlite:///{tmp_path}/mlflow.db"
    odd = compose_settings(["logger=mlflow", f"artefacts.runs_dir='{tmp_path}/50%20 of?#1'"])
    assert make_url(mlflow_store.address(odd)).database == f"{tmp_path}/50%20 of?#1/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:pw@host")
    assert mlflow_store.address(settings) == "https://me:pw@host"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI: 'mlruns' is no address"):
        mlflow_store.address(settings)
    chosen = ["logger=mlflow", "logger.mlflow.uri=http://localhost:5000"]
    assert mlflow_store.address(compose_settings(chosen)) == "http://localhost:5000"


def test_without_the_package_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    settings = compose_settings(["logger=mlflow", f"artefacts.runs_dir={tmp_path}"])
    with pytest.raises(UsageError, match=r"pip install 'mlflow>=3\.17'"):
        make_loggers(settings, TrialFolder.open(settings))


def test_only_the_first_process_talks_to_mlflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    settings = compose_settings(["logger=[wandb,mlflow]", f"artefacts.runs_dir={tmp_path}"])
    loggers = make_loggers(settings, TrialFolder.open(settings), first=False)
    assert [logger.name for logger in loggers] == ["wandb", "mlflow", "metrics"]


def test_mlflow_keeps_best_alone(tmp_path: Path) -> None:
    for name in ("best", "last"):
        (tmp_path / name).mkdir()
    settings = compose_settings(["logger=mlflow"])
    assert models_to_keep(settings, tmp_path, "done", "mlflow") == [tmp_path / "best"]
    assert models_to_keep(settings, tmp_path, "done") == []
    assert models_to_keep(settings, tmp_path, "pruned", "mlflow") == []


def test_of_a_databases_error_the_cause_is_shown() -> None:
    text = (
        "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush)\n"
        "(sqlite3.OperationalError) attempt to write a readonly database\n[SQL: INSERT ...]"
    )
    assert cause(RuntimeError(text)).endswith("attempt to write a readonly database")
    assert cause(RuntimeError()) == ""


def test_a_trial_that_never_had_a_row_awaits_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("logger:\n  mlflow:\n    uri: null\n")
    assert not awaits_mlflow(tmp_path, {"state": "failed"})
    assert awaits_mlflow(tmp_path, {"state": "failed", "mlflow_key": "k"})
    (tmp_path / "metrics.csv").write_text("step\n1\n")
    assert awaits_mlflow(tmp_path, {"state": "failed"})
