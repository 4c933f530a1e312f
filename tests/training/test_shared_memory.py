"""A full /dev/shm ends a trial in one line, whatever torch makes of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mlmodeldev.data.shared_memory import shared_memory_full
from tests.training.own_project import Project

WIDE = """\
import torch
from points import Points


class Wide(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, item):
        return torch.randn(8), item.index % 3, torch.ones(9000)


class WidePoints(Points):
    in_memory = False

    def setup(self, stage=None):
        self.train_set = self.val_set = Wide()
"""
SMALL = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'


def may_mount() -> bool:
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", SMALL, "sh", "true"], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="can't mount a /dev/shm of its own")
def test_a_trial_with_a_small_one(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    project.write("zoo/wide.py", WIDE)
    project.write("conf/data/wide.yaml", "_target_: zoo.wide.WidePoints\n")
    status, printed, folder = project.train(
        "small",
        "data=wide",
        "model=net",
        "processing.num_workers=1",
        "artefacts.rehearsal=false",
        before=["unshare", "-m", "sh", "-c", SMALL, "sh"],
    )
    assert status == 2, printed
    assert "Traceback" not in printed
    last = printed.strip().splitlines()[-1]
    assert last.startswith("trainer.py: /dev/shm (0 MiB, ")
    assert "processing.num_workers=0" in last
    assert "--shm-size" in last
    record = json.loads((folder / "trial.json").read_text())
    assert (record["state"], record["reason"]) == ("failed", last.removeprefix("trainer.py: "))


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's"
        " workers are out of shared memory. Please try to raise your shared memory limit.",
        "unable to write to file </torch_12_34_0>: No space left on device (28)",
        "unable to mmap 400 bytes from file </torch_12_34_0>: Cannot allocate memory (12)",
        "DataLoader worker (pid 7) exited unexpectedly with exit code 28. Details are lost",
    ],
)
def test_what_torch_says_of_it(text: str) -> None:
    error = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
    error.__cause__ = RuntimeError(text)
    assert (shared_memory_full(error) or "").startswith("/dev/shm (")


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/scratch/runs/trial.json"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 1."),
    ],
)
def test_what_has_another_cause(error: Exception) -> None:
    assert shared_memory_full(error) is None
