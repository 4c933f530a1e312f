"""A warning while a step or the loader hangs: the attempt is given up in time to be requeued."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlmodeldev.trial import unanswered
from tests.training.own_project import ROOT, Project

STUCK = """\
import ctypes
import os
import time

import torch
from points import Points


class Stuck(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, item):
        if item.epoch == 1:
            open("stuck", "w").close()
            # a library's call that takes no notice of signals
            ctypes.CDLL(None).sem_wait(ctypes.create_string_buffer(64))
            time.sleep(600)
        return torch.randn(8), item.index % 3


class StuckPoints(Points):
    in_memory = False

    def setup(self, stage=None):
        self.train_set, self.val_set = Stuck(), self.__class__.held_out(self)

    def held_out(self):
        super().setup()
        return self.val_set
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_hangs(workers: int, tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    project.write("zoo/stuck.py", STUCK)
    project.write("conf/data/stuck.yaml", "_target_: zoo.stuck.StuckPoints\n")
    words = (
        *(
            "data=stuck",
            "model=net",
            "logger=csv",
            "training.monitor=val_loss",
            "training.mode=min",
        ),
        *("training.accelerator=cpu", "artefacts.trial=t", "artefacts.rehearsal=false"),
        *(f"processing.num_workers={workers}", "cluster.warn_seconds=12"),
    )
    process = subprocess.Popen(
        [sys.executable, "trainer.py", *words],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "7"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 100
        while not (project.root / "stuck").exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        begun = time.monotonic()
        printed, _ = process.communicate(timeout=60)
    finally:  # its loader, too, where nothing gives it up
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 75, printed
    assert time.monotonic() - begun < 30
    folder = project.root / "runs/single/t"
    record = json.loads((folder / "trial.json").read_text())
    assert record["state"] == "interrupted"
    assert record["reason"] == "SIGUSR1 was not answered in time: a step, or the loader, hangs"
    assert list((folder / "checkpoints").glob("step-*.ckpt"))  # of the first epoch's end


def test_a_warning_that_is_answered_and_one_of_a_child() -> None:
    given_up: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with unanswered.giving_up(0.0, given_up.append):
            child = os.fork()
            if not child:
                signal.raise_signal(signal.SIGUSR1)
                os._exit(0)
            os.waitpid(child, 0)
            unanswered.answered()
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert given_up == []


@pytest.mark.parametrize(("warned", "seconds"), [(120, 90.0), (5, 10.0)])
def test_there_is_time_left_to_requeue(warned, seconds, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert unanswered.seconds_to_answer(warned) == seconds
    monkeypatch.delenv("SLURM_JOB_ID")
    assert unanswered.seconds_to_answer(warned) is None
