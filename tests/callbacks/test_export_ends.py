"""A trial is done when best/ and last/ are there: killed, failed or told to end on the way."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable

import pytest

from tests.callbacks import patches
from tests.conftest import TrialResult, Trials

SMALL = (
    "logger=csv",
    "training.max_epochs=2",
    "training.limit_train_batches=3",
    "training.limit_val_batches=2",
    "processing.batch_size=16",
    "model.hidden_size=16",
    "model.num_layers=1",
    "callbacks.cka.enabled=false",
)
FOLDERS = ("best", "last")


def exports(ended: TrialResult) -> dict[str, bytes]:
    """The exported weights of a trial."""
    files = {name: ended.folder / name / "model.safetensors" for name in FOLDERS}
    return {name: file.read_bytes() for name, file in files.items() if file.is_file()}


@pytest.fixture(scope="module")
def whole(shared_trials: Trials) -> TrialResult:
    """The same trial, left alone."""
    ended = shared_trials.run(*SMALL, name="whole-export")
    assert ended.code == 0, ended.output
    return ended


def assert_equal(ended: TrialResult, whole: TrialResult) -> None:
    assert ended.code == 0, ended.output
    assert ended.record["state"] == "done"
    assert exports(ended) == exports(whole)
    assert ended.record["test"] == whole.record["test"]
    assert ended.rows == whole.rows
    for name in FOLDERS:
        ours, theirs = (
            json.loads((each.folder / name / "training_state.json").read_text())
            for each in (ended, whole)
        )
        for what in ("epoch", "step", "metric"):
            assert ours[what] == theirs[what], (name, what)


@pytest.mark.parametrize(
    ("patch", "there"),
    [
        (patches.killed_before_last, []),
        (patches.killed_before_best, ["last"]),
        (patches.killed_after_best, ["best", "last"]),
    ],
)
def test_killed_while_exporting(
    trials: Trials, whole: TrialResult, patch: Callable[[], None], there: list[str]
) -> None:
    killed = trials.run(*SMALL, patch=patch)
    assert killed.code == -signal.SIGKILL
    assert killed.record["state"] != "done"
    assert sorted(exports(killed)) == there
    assert_equal(trials.run(*SMALL), whole)


def test_an_error_in_the_export(trials: Trials, whole: TrialResult) -> None:
    failed = trials.run(*SMALL, patch=patches.failing_export)
    assert failed.record["state"] == "failed"
    assert "no such luck" in failed.record["reason"]
    assert_equal(trials.run(*SMALL), whole)


def test_signalled_at_the_last_step(trials: Trials, whole: TrialResult) -> None:
    ended = trials.run(*SMALL, signal_at=(signal.SIGTERM, 6))
    assert ended.code == 75
    assert exports(ended) == {}
    assert_equal(trials.run(*SMALL), whole)


def test_signalled_in_the_last_validation(trials: Trials, whole: TrialResult) -> None:
    ended = trials.run(*SMALL, signal_at=(signal.SIGTERM, 4), during="validation_step")
    assert ended.code == 75
    assert_equal(trials.run(*SMALL), whole)


def test_signalled_in_the_test(trials: Trials, whole: TrialResult) -> None:
    ended = trials.run(*SMALL, signal_at=(signal.SIGTERM, 1), during="test_step")
    assert ended.code == 75
    assert_equal(trials.run(*SMALL), whole)


def test_a_done_trial_without_an_export_is_not_done(trials: Trials, whole: TrialResult) -> None:
    first = trials.run(*SMALL)
    shutil.rmtree(first.folder / "best")
    assert_equal(trials.run(*SMALL), whole)
    shutil.rmtree(first.folder / "last")
    shutil.rmtree(first.folder / "checkpoints")  # nothing is left to export from
    again = trials.run(*SMALL)
    assert again.record["attempts"] == 2
    assert "done already" in again.output


def test_early_stopping_is_remembered_when_killed_in_the_export(trials: Trials) -> None:
    stops = (*SMALL, "training.max_epochs=6", "training.patience=1", "optimizer.lr=1e-9")
    killed = trials.run(*stops, patch=patches.killed_before_last)
    epochs = killed.record["epoch"]
    assert epochs < 6
    ended = trials.run(*stops)
    assert (ended.record["state"], ended.record["epoch"]) == ("done", epochs)
    assert sorted(exports(ended)) == ["best", "last"]
