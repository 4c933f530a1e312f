"""The training loop does not wait for the client, and models go where the settings say."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking import wandb_rows
from mlmodeldev.tracking.metadata import models_to_keep
from mlmodeldev.tracking.wandb_logger import WandbTrialLogger
from mlmodeldev.trial.record import STEP


class Client:
    """What a tracker uses of a run; each row waits until it may go."""

    starting_step, id = 0, "run1"

    def __init__(self) -> None:
        self.open = threading.Event()
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.config = SimpleNamespace(update=lambda *a, **k: None)
        self.finished: list[int] = []

    def define_metric(self, *names: str, **options: Any) -> None:
        pass

    def log(self, row: dict[str, Any], step: int, commit: bool) -> None:
        self.open.wait(60)
        self.rows.append((step, row))

    def finish(self, exit_code: int) -> None:
        self.finished.append(exit_code)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def tracker(client: Client, tmp_path: Path) -> WandbTrialLogger:
    return WandbTrialLogger(client, tmp_path / "metrics.csv", monitor="val/loss", mode="min")


def test_rows_are_taken_at_once_and_sent_in_their_order(tracker: WandbTrialLogger, client: Client):
    begun = time.monotonic()
    for step in range(100):
        tracker.log_metrics({"val/loss": abs(step - 40)}, step)
    assert time.monotonic() - begun < 30, "it does not wait for the client, which takes none"
    assert client.rows == []
    client.open.set()
    assert tracker.end("done") is True
    assert [number for number, _ in client.rows] == list(range(100))
    assert [row["trainer/global_step"] for _, row in client.rows] == list(range(100))
    assert client.summary == {"val/loss": 0.0, "state": "done"}
    assert client.finished == [0]


def test_a_client_that_hangs_does_not_keep_a_trial(
    tracker: WandbTrialLogger, client: Client, monkeypatch
):
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "0.2")
    tracker.log_metrics({"val/loss": 1.0}, 1)
    assert tracker.end("done") is False, "not all is up: `sync` sees to it"
    client.open.set()


def test_a_client_that_fails_is_reported_once(
    tracker: WandbTrialLogger, client: Client, monkeypatch, capsys
):
    def fail(*given: Any, **named: Any) -> None:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(client, "log", fail)
    for step in range(5):
        tracker.log_metrics({"val/loss": 1.0}, step)
    assert tracker.end("done") is False
    errors = capsys.readouterr().err
    assert errors.count("Weights & Biases: gone (ConnectionResetError: gone)") == 1


# --- models


def exported(folder: Path, value: float, state: str = "done") -> Path:
    """A trial's folder with both models."""
    for name in ("best", "last"):
        (folder / name).mkdir(parents=True)
    record = {"state": state, "metric": {"value": value}}
    (folder / "trial.json").write_text(json.dumps(record))
    return folder


def kept(folder: Path, *overrides: str, state: str = "done") -> list[str]:
    settings = compose_settings(["logger=wandb", *overrides])
    return [path.name for path in models_to_keep(settings, folder, state)]


def test_a_trial_by_hand_keeps_both_unless_set_otherwise(tmp_path: Path):
    folder = exported(tmp_path / "one", 0.5)
    assert kept(folder) == ["best", "last"]
    assert kept(folder, "logger.wandb.models=none") == []
    assert kept(folder, "logger=csv") == []
    assert [kept(folder, state=s) for s in ("failed", "interrupted", "pruned")] == [[]] * 3


@pytest.mark.parametrize(("mode", "keeps"), [("max", "high"), ("min", "low")])
def test_of_a_sweep_only_the_best_so_far_is_kept(tmp_path: Path, mode: str, keeps: str):
    low, high = exported(tmp_path / "low", 0.1), exported(tmp_path / "high", 0.9)
    exported(tmp_path / "nan", float("nan"))
    exported(tmp_path / "running", 5.0, "running")
    of_sweep = ("artefacts.sweep=digits", f"training.mode={mode}")
    result = {folder.name: kept(folder, *of_sweep) for folder in (low, high)}
    assert result == {"low": [], "high": []} | {keeps: ["best"]}
    assert kept(low, *of_sweep, "logger.wandb.models=all") == ["best", "last"]


def test_what_a_model_logs_travels_with_the_next_row(tracker: WandbTrialLogger, client: Client):
    client.open.set()
    tracker.experiment.log({"mine/picture": "a picture"})
    tracker.experiment.log({"mine/count": 3}, step=900, commit=True)
    tracker.log_metrics({"val/loss": 1.0}, 1)
    tracker.log_metrics({"val/loss": 2.0}, 2)
    tracker.experiment.log({"mine/last": 4})
    assert tracker.experiment.id == "run1"  # all else is the client's
    tracker.end("done")
    assert client.rows == [
        (0, {"mine/picture": "a picture", "mine/count": 3, "val/loss": 1.0, STEP: 1}),
        (1, {"val/loss": 2.0, STEP: 2}),
    ]
    assert client.summary["mine/last"] == 4


def test_what_a_model_logs_moves_no_row_and_takes_no_value_of_it(
    tracker: WandbTrialLogger,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.open.set()
    own = {"epoch": 7, "mine/epoch": 7, "step": 900, "trainer/other": 1, "val/loss": 0.125}
    tracker.experiment.log({"picture": "p", STEP: 900, "_step": 900, "_timestamp": 1.0, **own})
    tracker.log_metrics({"val/loss": 1.0, "epoch": 0}, 49)
    tracker.experiment.log({STEP: 900, "epoch": 7, "_runtime": 1, "val/loss": 0.125, "last": 4})
    tracker.end("done")
    seen = {"picture": "p", "mine/epoch": 7, "step": 900, "trainer/other": 1}
    assert client.rows == [(0, {**seen, "val/loss": 1.0, "epoch": 0, STEP: 49})]
    assert client.summary == {"val/loss": 1.0, "last": 4, "state": "done"}

    again = Client()
    again.open.set()
    again.starting_step = again.entity = again.project = 1  # type: ignore[attr-defined]
    monkeypatch.setattr(wandb_rows, "last_row", lambda *names: client.rows[0][1])
    resumed = WandbTrialLogger(again, tmp_path / "metrics.csv", monitor="val/loss", mode="min")
    resumed.log_metrics({"val/loss": 1.0, "epoch": 0}, 49)
    resumed.log_metrics({"val/loss": 0.5, "epoch": 0}, 99)
    resumed.end("done")
    assert [(number, row[STEP]) for number, row in again.rows] == [(1, 99)]


def test_rows_that_come_anew_are_not_sent_from_the_file(
    tracker: WandbTrialLogger, client: Client, tmp_path: Path
):
    """Whether or not the file has been cut back before: the tracker is the first logger."""
    client.open.set()
    lines = [f",{step},{float(step)}\n" for step in (1, 2, 3, 4)]
    (tmp_path / "metrics.csv").write_text("epoch,step,val/loss\n" + "".join(lines))
    tracker.resume_from(step=3)
    tracker.log_metrics({"val/loss": 0.5}, 3)
    tracker.end("done")
    assert [(number, row[STEP], row["val/loss"]) for number, row in client.rows] == [
        (0, 1, 1.0),
        (1, 2, 2.0),
        (2, 3, 0.5),
    ]
