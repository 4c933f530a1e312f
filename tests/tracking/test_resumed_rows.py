"""Rows of a trial that resumes: by Lightning's count of batches, not by that of optimizer steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlmodeldev.tracking.loggers import resume_loggers
from mlmodeldev.tracking.metrics_csv import MetricsFile
from mlmodeldev.tracking.tensorboard import TensorBoardFiles
from mlmodeldev.tracking.timed_rows import rows_of
from mlmodeldev.tracking.wandb_logger import WandbTrialLogger
from mlmodeldev.trial.record import STEP, read_rows
from tests.tracking.test_wandb_logger import Client


class Sends:
    """What MLflow's and ClearML's loggers read of the file when a trial resumes."""

    def __init__(self, file: Path) -> None:
        self.file, self.steps = file, [-1]

    def resume_from(self, step: int) -> None:
        """Read the rows before a step."""
        self.steps = [row.step for row in rows_of(self.file, step)]


def checkpoint(folder: Path, stepped: int, within: bool, **logged: Any) -> Path:
    """Write what a recovery checkpoint holds of the progress of Lightning's loops."""
    current = {"ready": 3, "started": 3, "processed": 3, "completed": 2 if within else 3}
    fit_loop = {
        "epoch_loop.state_dict": {"_batches_that_stepped": stepped},
        "epoch_loop.batch_progress": {"current": current},
    }
    path = folder / "step-0000000004.ckpt"
    torch.save({"loops": {"fit_loop": fit_loop}, "mlmodeldev": logged}, path)
    return path


AFTER_EIGHT_BATCHES = [
    (7, True, {"rows": 8}),  # after a batch, which Lightning has not counted yet
    (8, False, {"rows": 8}),  # after an epoch
    (7, False, {"rows": 8, "validation_due": True}),
    (7, True, {}),  # of a version that did not count rows, nor steps of more than one a batch
]


@pytest.mark.parametrize(
    ("stepped", "within", "logged", "steps"),
    [
        (*case, steps)
        for case in AFTER_EIGHT_BATCHES
        for steps in (4, 0, 16)  # each second batch, by a raw optimizer, two a batch
        if case[2] or steps != 16
    ],
)
def test_all_rows_that_a_checkpoint_has_behind_it_stay(
    tmp_path: Path, stepped: int, within: bool, logged: dict[str, Any], steps: int
) -> None:
    file, client = tmp_path / "metrics.csv", Client()
    client.open.set()
    before, board = MetricsFile(file), TensorBoardFiles(tmp_path)
    board.resume_from(0)
    for step in range(10):
        before.log_metrics({"loss": 1.0 / (step + 1)}, step)
        board.log_metrics({"loss": 1.0 / (step + 1)}, step)
    before.finalize("success"), board.finalize("success")
    rows, board = MetricsFile(file), TensorBoardFiles(tmp_path)
    tracker, sends = WandbTrialLogger(client, file, "loss", "min"), Sends(file)
    loggers = [board, tracker, sends, rows]
    resume_loggers(loggers, steps, checkpoint(tmp_path, stepped, within, **logged))
    assert [row["step"] for row in read_rows(file)] == list(range(8))
    assert sends.steps == list(range(8))
    for each in (board, tracker, rows):
        each.log_metrics({"loss": 0.25}, 8)
    tracker.end("done")
    board.finalize("success"), rows.finalize("success")
    assert [row[STEP] for _, row in client.rows] == list(range(9))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in shown] == list(range(9))
    assert shown[8][1] == 0.25


def test_rows_that_a_model_logs_by_its_optimizer_steps_stay(tmp_path: Path) -> None:
    """Two steps a batch: `self.logger.log_metrics(..., step=self.global_step)` is ahead."""
    file = tmp_path / "metrics.csv"
    before = MetricsFile(file)
    for batch in range(4):
        before.log_metrics({"loss": float(batch)}, batch)
        before.log_metrics({"mine": float(batch)}, 2 * batch + 2)
    before.finalize("success")
    sends = Sends(file)
    resume_loggers([sends, MetricsFile(file)], 6, checkpoint(tmp_path, 2, True, rows=6))
    assert [row["step"] for row in read_rows(file)] == sends.steps == [0, 2, 1, 4, 2, 6]
