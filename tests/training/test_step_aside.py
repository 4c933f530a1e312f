"""An attempt that was taken over: it stands still only where Slurm would mix up its end."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlmodeldev.lease import LostLease
from mlmodeldev.training import session
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.signals import SIGNALS


class Still(Exception):
    """It stands still."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrialFolder]:
    def still(_: float) -> None:
        raise Still

    monkeypatch.setattr(time, "sleep", still)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield TrialFolder(tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


def successor(folder: TrialFolder, **slurm: str) -> None:
    (folder.path / "trial.json").write_text(json.dumps({"slurm": slurm}))


@pytest.mark.parametrize(
    "slurm", [{}, {"job_id": "6"}, {"job_id": "5"}, {"job_id": "5", "restart_count": "0"}]
)
def test_two_shells_of_one_allocation_end_as_usual(folder: TrialFolder, slurm: dict) -> None:
    """Ctrl-C still ends the first, whose trial the second has begun anew."""
    successor(folder, **slurm)
    session._step_aside(folder, LostLease("lost"))
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN


def test_before_a_later_start_of_its_own_job_it_stands_still(folder: TrialFolder) -> None:
    successor(folder, job_id="5", restart_count="1")
    with pytest.raises(Still):
        session._step_aside(folder, LostLease("lost"))
