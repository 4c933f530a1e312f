"""metrics.csv: exact numbers, new columns, and going on after a kill."""

from __future__ import annotations

import csv
import math
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmodeldev.errors import UsageError
from mlmodeldev.lease import LostLease
from mlmodeldev.tracking.metrics_csv import MetricsFile


def rows(file) -> list[dict[str, str]]:
    """Return the rows without their empty cells and the time of writing."""
    with file.open(newline="") as lines:
        return [
            {k: v for k, v in row.items() if v and k != "time/logged"}
            for row in csv.DictReader(lines)
        ]


def metrics_file(file) -> MetricsFile:
    """A file whose rows are all written at one time."""
    return MetricsFile(file, clock=lambda: 1234.5678)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "metrics.csv"


@pytest.fixture
def logger(file):
    """A file with the rows of steps 0 to 4, and a validation after step 2."""
    logger = metrics_file(file)
    logger.resume_from(0)
    for step in range(5):
        logger.log_metrics({"train/loss": 1.0 / (step + 1), "epoch": 0}, step)
        if step == 2:
            logger.log_metrics({"val/accuracy": 0.5, "epoch": 0}, step)
    return logger


def test_rows_are_read_by_any_csv_reader(logger, file):
    assert file.read_text().splitlines()[0] == "epoch,step,time/logged,train/loss,val/accuracy"
    assert rows(file)[0] == {"epoch": "0", "step": "0", "train/loss": "1.0"}
    assert rows(file)[3] == {"epoch": "0", "step": "2", "val/accuracy": "0.5"}
    assert [row["step"] for row in rows(file)] == ["0", "1", "2", "2", "3", "4"]


def test_each_row_says_when_it_was_written(file):
    times = iter([1000.0, 1700000000.1234])
    logger = MetricsFile(file, clock=lambda: next(times))
    logger.log_metrics({"x": 1.0}, 0)
    logger.log_metrics({"x": 2.0}, 1)
    with file.open(newline="") as lines:
        assert [row["time/logged"] for row in csv.DictReader(lines)] == [
            "1000.000",
            "1700000000.123",
        ]


def test_a_new_metric_adds_a_column_and_keeps_all_rows(logger, file):
    before = rows(file)
    logger.log_metrics({"a/new": 2.5}, 9)
    assert rows(file) == [*before, {"step": "9", "a/new": "2.5"}]
    assert (
        file.read_text().splitlines()[0] == "epoch,step,a/new,time/logged,train/loss,val/accuracy"
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=4))
def test_numbers_are_read_back_to_the_last_bit(tmp_path_factory, numbers):
    file = tmp_path_factory.mktemp("m") / "metrics.csv"
    logger = metrics_file(file)
    for step, number in enumerate(numbers):
        logger.log_metrics({"x": number}, step)
    values = [float(row["x"]) for row in rows(file)]
    for one, other in zip(values, numbers, strict=True):
        same = struct.pack("d", one) == struct.pack("d", other)
        assert same or (math.isnan(one) and math.isnan(other))


def test_tensors_and_whole_numbers_are_written_as_numbers(file):
    logger = metrics_file(file)
    logger.log_metrics({"loss": torch.tensor(0.1), "count": 3, "flag": torch.tensor(2)}, 1)
    (row,) = rows(file)
    assert (row["count"], row["flag"]) == ("3", "2")
    assert float(row["loss"]) == torch.tensor(0.1).item()


def test_names_with_commas_and_quotes_survive(file):
    logger = metrics_file(file)
    logger.log_metrics({'a,"b"': 1.5}, 0)
    logger.log_metrics({'a,"b"': 2.5}, 1)
    assert [row['a,"b"'] for row in rows(file)] == ["1.5", "2.5"]


def test_a_resumed_trial_drops_what_it_will_write_again(logger, file):
    whole = file.read_text()
    again = metrics_file(file)
    again.resume_from(2)
    assert [row["step"] for row in rows(file)] == ["0", "1"]
    again.log_metrics({"train/loss": 1.0 / 3, "epoch": 0}, 2)
    again.log_metrics({"val/accuracy": 0.5, "epoch": 0}, 2)
    for step in (3, 4):
        again.log_metrics({"train/loss": 1.0 / (step + 1), "epoch": 0}, step)
    assert file.read_text() == whole


def test_a_validation_that_comes_again_has_its_row_once(logger, file):
    """The rows of steps 0, 1, 2 were there, and the validation of the weights of three steps."""
    whole = file.read_text()
    again = metrics_file(file)
    again.resume_from(3, rows=3)
    assert [row.get("train/loss") for row in rows(file)] == ["1.0", "0.5", str(1 / 3)]
    assert again.rows == 3
    again.log_metrics({"val/accuracy": 0.5, "epoch": 0}, 2)
    assert again.rows == 4
    for step in (3, 4):
        again.log_metrics({"train/loss": 1.0 / (step + 1), "epoch": 0}, step)
    assert file.read_text() == whole
    again.log_metrics({"a/new": 2.5}, 9)
    assert again.rows == len(rows(file)) == 7


def test_resuming_past_the_end_keeps_all(logger, file):
    whole = file.read_text()
    metrics_file(file).resume_from(100)
    assert file.read_text() == whole


@pytest.mark.parametrize("torn", range(1, 10))
def test_a_torn_last_line_is_dropped(logger, file, torn):
    file.write_bytes(file.read_bytes()[:-torn])
    again = metrics_file(file)
    again.resume_from(5)
    again.log_metrics({"train/loss": 9.0}, 5)
    steps = [row["step"] for row in rows(file)]
    assert steps == ["0", "1", "2", "2", "3", "5"]


def test_a_torn_header_and_a_file_of_zeros_mean_a_new_start(file):
    for content in (b"epoch,st", b"", b"\0" * 50):
        file.write_bytes(content)
        again = metrics_file(file)
        again.resume_from(3)
        again.log_metrics({"x": 1.0}, 3)
        assert rows(file) == [{"step": "3", "x": "1.0"}]


def test_a_logger_that_does_not_resume_keeps_what_is_there(logger, file):
    before = rows(file)
    metrics_file(file).log_metrics({"other": 1.0}, 7)
    assert rows(file) == [*before, {"step": "7", "other": "1.0"}]


def test_hyperparameters_are_not_written_here(file):
    logger = metrics_file(file)
    logger.log_hyperparams({"lr": 0.1})
    assert not file.exists()
    assert (logger.name, logger.version, logger.experiment) == ("metrics", "", file)


def test_a_place_that_cannot_be_written_is_reported(logger, file):
    file.unlink()
    file.parent.rename(file.parent.with_name("moved"))
    file.parent.write_text("")
    for metrics in ({"train/loss": 1.0}, {"brand/new": 1.0}):
        with pytest.raises(UsageError, match="is a file"):
            logger.log_metrics(metrics, 9)


def test_pictures_for_a_tracker_are_passed_over_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = MetricsFile(tmp_path / "metrics.csv")
    for _ in range(2):
        logger.experiment.add_video("generated", [1], 0)  # type: ignore[attr-defined]
    assert [record.getMessage() for record in caplog.records] == [
        "metrics.csv holds numbers of self.log: logger.experiment.add_video is passed over"
    ]
    assert not hasattr(logger.experiment, "mkdirr")
    assert (logger.experiment / "x").name == "x"


def test_an_attempt_that_was_taken_over_writes_no_row_beside_its_successor(logger, file):
    """Its processes live on for a moment after Slurm has given their node up."""
    successor = metrics_file(file)
    successor.resume_from(3)
    logger.log_metrics({"train/loss": 1.0 / 4, "epoch": 0}, 3)  # what it had open was replaced
    assert [row["step"] for row in rows(file)] == ["0", "1", "2", "2", "3"], "it may still own it"
    successor.resume_from(3)

    def lost() -> None:
        raise LostLease("taken over")

    logger.check_owner = lost
    for name in ("train/loss", "a/new"):
        with pytest.raises(LostLease):
            logger.log_metrics({name: 0.25, "epoch": 0}, 3)
    successor.log_metrics({"train/loss": 1.0 / 4, "epoch": 0}, 3)
    assert [row["step"] for row in rows(file)] == ["0", "1", "2", "2", "3"]


def test_a_file_that_someone_has_saved_anew_keeps_its_rows(logger, file):
    text = file.read_text()
    (file.parent / "edited").write_text(text)
    (file.parent / "edited").replace(file)
    logger.log_metrics({"train/loss": 7.0, "epoch": 0}, 5)
    assert file.read_text().startswith(text)
    assert rows(file)[-1] == {"epoch": "0", "step": "5", "train/loss": "7.0"}


def test_rows_after_the_file_was_closed_are_written(logger, file):
    before = rows(file)
    logger.finalize("success")
    logger.log_metrics({"train/loss": 7.0, "epoch": 0}, 5)
    assert rows(file) == [*before, {"epoch": "0", "step": "5", "train/loss": "7.0"}]
