"""Each row of a trial is in its W&B run once, though a power cut has taken rows off its file."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from mlmodeldev.tracking import wandb_api
from mlmodeldev.tracking.bounded import Unreachable
from mlmodeldev.tracking.wandb_rows import RunRows
from mlmodeldev.trial.record import STEP


class Run:
    """A run as the client opens it again: it says how many rows W&B has."""

    entity, project, id = "me", "digits", "run1"

    def __init__(self, history: list[dict[str, Any]]) -> None:
        self.history, self.starting_step = history, len(history)
        self.summary: dict[str, Any] = {}

    def log(self, row: dict[str, Any], step: int, commit: bool) -> None:
        assert step == len(self.history), "W&B drops a row whose number is not the next"
        self.history.append(row)


WRITTEN = [
    (step, {name: 1 / (step + 3)})
    for step in range(8)
    for name in (["train/loss", "val/loss"] if step % 2 else ["train/loss"])
]
"""All rows of a trial: after every other step there is a validation, too."""


@pytest.fixture
def open_again(monkeypatch):
    """Opens the run of a server that has so many of the rows."""

    def opened(count: int, answers: bool = True) -> tuple[Run, RunRows]:
        run = Run([{STEP: step, **metrics} for step, metrics in WRITTEN[:count]])

        def query(text: str, names: dict[str, str], seconds: float) -> dict[str, Any]:
            assert names == {"entity": "me", "project": "digits", "run": "run1"}
            if not answers:
                raise Unreachable("away")
            tail = json.dumps([json.dumps(run.history[-1])])
            return {"model": {"bucket": {"historyTail": tail}}}

        monkeypatch.setattr(wandb_api, "query_server", query)
        return run, RunRows(run, "val/loss", "min")

    return opened


def write_again(rows: RunRows, written: list[tuple[int, dict[str, Any]]]) -> None:
    for step, metrics in written:
        row = rows.number(metrics, step)
        if row is not None:
            rows.send(row, {})


def is_whole(run: Run) -> bool:
    return run.history == [{STEP: step, **metrics} for step, metrics in WRITTEN]


@pytest.mark.parametrize("there", range(len(WRITTEN) + 1))
def test_what_is_there_is_not_sent_again(open_again, there):
    run, rows = open_again(there)
    write_again(rows, WRITTEN)
    assert is_whole(run)
    assert rows.count == len(WRITTEN)


@pytest.mark.parametrize("there", range(1, len(WRITTEN) + 1))
def test_rows_that_the_disk_has_lost_shift_no_later_ones(open_again, there):
    """The file lacks rows that W&B has: the last ones came later, and are sent all the same."""
    newest = WRITTEN[there - 1][0]
    for checkpoint in range(newest + 1):
        for lost_from in range(checkpoint):
            run, rows = open_again(there)
            left = [row for row in WRITTEN if not lost_from <= row[0] < checkpoint]
            write_again(rows, left)
            assert is_whole(run), (lost_from, checkpoint)
            assert rows.best == 1 / 10


def test_a_server_that_does_not_say_is_believed_its_count(open_again):
    run, rows = open_again(5, answers=False)
    write_again(rows, WRITTEN)
    assert is_whole(run)


def test_a_value_that_json_can_not_hold_is_no_difference(open_again):
    run, rows = open_again(3)
    run.history[-1]["val/loss"] = "NaN"
    assert rows.number({"val/loss": math.nan}, WRITTEN[2][0]) is None
