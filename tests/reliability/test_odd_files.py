"""Files that an odd clock, a crash or a stranger has left where a trial or a command looks."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlmodeldev.callbacks.epoch_log import EpochLog
from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.commands.launch import _submit_lock
from mlmodeldev.slurm.epilog import _progress
from mlmodeldev.slurm.submission import Submission, jobs_of, submission_names
from mlmodeldev.trial.collected import NOTE, refuse_without_checkpoints
from tests.callbacks.test_any_module import Plain, fit

AHEAD = 3600.0


def made_an_hour_ahead(sweep: Path) -> Submission:
    """A submission from a machine whose clock is wrong."""
    submission = Submission.new(sweep, sweep)
    submission.created = time.time() + AHEAD
    submission.add("100", [["trial"]])
    return submission


def lock(sweep: Path, submitted: frozenset[str]) -> contextlib.AbstractContextManager[None]:
    state: Any = SimpleNamespace(folder=sweep, submitted=submitted)
    return _submit_lock(state)


def test_a_submission_from_a_clock_an_hour_ahead_blocks_no_other(tmp_path):
    made_an_hour_ahead(tmp_path)
    with lock(tmp_path, submission_names(tmp_path)):
        pass


def test_a_submission_since_one_looked_is_seen_from_whatever_clock(tmp_path, monkeypatch):
    """It may be an hour behind, too: nothing is submitted twice."""
    looked = submission_names(tmp_path)
    Submission.new(tmp_path, tmp_path, gpus=1).add("100", [["trial"]])
    behind = time.time() - AHEAD
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: behind)
        Submission.new(tmp_path, tmp_path).add("101", [["trial"]])
    with pytest.raises(UsageError, match="another command submits"), lock(tmp_path, looked):
        pass


def test_the_newest_job_of_a_trial_is_the_one_that_was_submitted_last(tmp_path):
    """Whichever clock was ahead: else a trial that waits in the queue is submitted once more."""
    made_an_hour_ahead(tmp_path)
    Submission.new(tmp_path, tmp_path).add("200", [["trial"]])
    assert jobs_of(tmp_path) == {"trial": "200"}
    Submission.new(tmp_path, tmp_path).add("300", [["trial"]])
    assert jobs_of(tmp_path) == {"trial": "300"}


@pytest.mark.parametrize("content", [b'[{"epoch": 1, "val', b"\xff\xfe", b"5", b'[{"step": 3}]'])
def test_a_log_that_can_not_be_read_is_kept_aside_with_a_warning(content, tmp_path, caplog):
    file = tmp_path / "log.json"
    file.write_bytes(content)
    assert EpochLog(file)._read() == []
    assert (tmp_path / "log-unreadable.json").read_bytes() == content
    assert "can't be read; it begins anew" in caplog.text
    assert not file.exists()
    caplog.clear()
    assert EpochLog(file)._read() == []
    assert caplog.text == "", "none yet is no fault"


def test_training_goes_on_beside_a_log_that_can_not_be_read(tmp_path):
    (tmp_path / "log.json").write_text("[{")
    assert [entry["epoch"] for entry in fit(tmp_path, Plain())] == [1, 2]
    assert json.loads((tmp_path / "log.json").read_text())


def test_strange_names_among_checkpoints_are_no_checkpoints(tmp_path):
    """Neither a reason to go on from one, nor how far a job has come."""
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    os.mkfifo(checkpoints / "step-0000000007.ckpt")
    (checkpoints / "step-x.ckpt").touch()
    assert _progress(tmp_path) == ""
    with pytest.raises(UsageError, match="its checkpoints were dropped"):
        refuse_without_checkpoints(tmp_path, {NOTE: {"at": 0}})
    (checkpoints / "step-0000000003.ckpt").touch()
    assert _progress(tmp_path) == "step-0000000003.ckpt"
    refuse_without_checkpoints(tmp_path, {NOTE: {"at": 0}})
