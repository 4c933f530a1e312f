"""The record that can't be written for a moment ends no training."""

from __future__ import annotations

from typing import Any

import pytest

from mlmodeldev.callbacks import resume
from mlmodeldev.errors import UsageError
from tests.reliability.test_numbers import Fit, Planted


def refuse_once(fit: Fit, epoch: int) -> None:
    """Let the record refuse an epoch's entry, as while another process keeps its lock."""
    folder = fit.recovery.folder
    update = folder.update

    def refusing(**changes: Any) -> dict[str, Any]:
        if changes.get("epoch") == epoch:
            raise UsageError(".record.lock: another process has kept this lock for 60 s")
        return update(**changes)

    folder.update = refusing  # type: ignore[method-assign]


def test_an_epochs_entry_waits_for_the_next(tmp_path, caplog) -> None:
    fit = Fit(tmp_path, "raise")
    refuse_once(fit, 2)
    fit.run(Planted())
    assert "the record lacks epoch 2 until the next" in caplog.text
    record = fit.recovery.folder.read()
    assert (record["epoch"], record["step"]) == (3, 9)


def test_the_last_entry_is_not_missed_in_silence(tmp_path) -> None:
    fit = Fit(tmp_path, "raise")
    refuse_once(fit, 3)
    with pytest.raises(UsageError, match="has kept this lock"):
        fit.run(Planted())


def test_a_look_at_the_owner_that_fails_is_taken_again(tmp_path, monkeypatch) -> None:
    """Such as a file handle that a network file system has lost for a moment."""
    monkeypatch.setattr(resume, "LOOK_SECONDS", -1.0)
    fit = Fit(tmp_path, "raise")
    folder, looks = fit.recovery.folder, []
    check = folder.check_owner

    def stale() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise OSError(116, "Stale file handle")
        check()

    folder.check_owner = stale  # type: ignore[method-assign]
    beat = fit.recovery._heartbeat

    def looking(trainer: Any) -> None:
        looks[:] = [1, 1]  # the next look is the one that fails
        beat(trainer)

    fit.recovery._heartbeat = looking  # type: ignore[method-assign]
    fit.run(Planted())
    assert fit.trainer.global_step == 9
