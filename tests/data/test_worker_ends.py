"""A loader's worker that can't hand its batches over: a long TMPDIR, full shared memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from tests.conftest import in_fork


def _full(tensor: torch.Tensor) -> NoReturn:
    """Answer as torch does in a worker, where there is no room in /dev/shm."""
    raise RuntimeError("unable to write to file: No space left on device (28)")


def _batches(folder: str, shm_is_full: bool) -> None:
    """Load with a worker, in a process of its own."""
    from multiprocessing.reduction import ForkingPickler

    from mlmodeldev.data.loader import outlive_sigterm
    from mlmodeldev.machine import shorten_socket_paths

    os.environ["TMPDIR"], tempfile.tempdir = folder, None
    shorten_socket_paths()
    dataset = torch.utils.data.TensorDataset(torch.arange(64.0))

    def worker_init(worker: int) -> None:
        outlive_sigterm(worker)
        if shm_is_full:
            ForkingPickler.register(torch.Tensor, _full)

    loader = torch.utils.data.DataLoader(
        dataset, 8, num_workers=1, worker_init_fn=worker_init, multiprocessing_context="fork"
    )
    print("batches", len(list(loader)))


@pytest.mark.parametrize("letters", [20, 100, 200])
def test_a_long_tmpdir_is_no_harm(tmp_path: Path, letters: int) -> None:
    folder = tmp_path / ("t" * letters)
    folder.mkdir()
    assert in_fork(tmp_path / "printed", _batches, str(folder), False) == 0
    assert "batches 8" in (tmp_path / "printed").read_text()


def test_full_shared_memory_ends_the_loader_and_is_reported(tmp_path: Path) -> None:
    """By default the queue's thread goes on without the batch, and the trial waits for it."""
    assert in_fork(tmp_path / "printed", _batches, str(tmp_path), True) == 1
    printed = (tmp_path / "printed").read_text()
    assert "a loader's worker can't hand over a batch: unable to write to file" in printed
    assert "exited unexpectedly" in printed
