"""CKA in validation is one number, whatever number of devices shares the batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mlmodeldev.alignment.hsic import gram
from mlmodeldev.alignment.of_ranks import Part, copied, join
from tests.alignment.test_ddp import free_port

pytestmark = pytest.mark.project

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *("logger=csv", "training.accelerator=cpu", "training.precision=64-true"),
    *("training.max_epochs=2", "training.limit_train_batches=1", "training.test=false"),
    *("artefacts.rehearsal=false", "callbacks.export.enabled=false"),
    *("model.hidden_size=16", "model.num_layers=1", "processing.batch_size=12"),
)
SPLITS = {
    "batches of 12, 12 and 6": (
        "data.val_fraction=0.0167",
        "callbacks.cka.feature_correction=true",
    ),
    "batches of 12, 12 and 3": ("data.val_fraction=0.015", "callbacks.cka.estimator=biased"),
}
"""On four devices: 3 examples each; the last batch in unequal parts, or too small for all."""


NUMBERS = ("matrix", "floor", "p_values", "threshold", "familywise_p", "lower", "upper")


def measured(devices: int, folder: Path, *settings: str) -> dict[str, np.ndarray]:
    """Train two epochs; return matrices and their errors by comparison, epoch and name."""
    place = (f"artefacts.runs_dir={folder}", f"artefacts.trial=on-{devices}")
    command = [sys.executable, "trainer.py", *SMALL, *place, f"training.devices={devices}"]
    ended = subprocess.run(
        [*command, *settings],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    files = (folder / "single" / f"on-{devices}" / "cka").glob("*/epoch-*.npz")
    contents = {f"{file.parent.name}/{file.stem}": np.load(file) for file in files}
    assert len(contents) == 4
    return {
        f"{place}/{name}": arrays[name]
        for place, arrays in contents.items()
        for name in NUMBERS
        if name in arrays
    }


@pytest.mark.slow
@pytest.mark.parametrize("splits", SPLITS)
def test_one_device_and_four_measure_the_same(splits: str, tmp_path: Path) -> None:
    kernel = "linear" if "6" in splits else "rbf"
    settings = (
        *SPLITS[splits],
        f"callbacks.cka.kernel={kernel}",
        "callbacks.cka.permutations=99",
    )
    alone = measured(1, tmp_path, *settings)
    for devices in (2, 4) if "6" in splits else (4,):
        together = measured(devices, tmp_path, *settings)
        assert together.keys() == alone.keys()
        for name, matrix in alone.items():
            assert np.isfinite(matrix).all(), name
            # thresholds are among sums of float32
            near = 1e-6 if name.endswith("threshold") else 1e-9
            assert together[name] == pytest.approx(matrix, abs=near), (devices, name)


def parts(rank: int) -> list[Part[torch.Tensor]]:
    """Two batches: rank 1 has a layer less in the first, and no example of the second."""
    draw = torch.Generator().manual_seed(0)
    wide, half = torch.randn(7, 5, 3, generator=draw), torch.randn(7, 9, generator=draw).bfloat16()
    mine = slice(0, 4) if rank == 0 else slice(4, 7)
    first: dict[str, Any] = {"wide": copied(wide[mine]), "half": copied(half[mine])}
    reasons = {} if rank == 0 else {"only": "did not run in this forward"}
    if rank == 0:
        first["only"] = torch.ones(4, 2)
    first["uneven"] = torch.ones(len(first["wide"]), 2 + rank)
    batches = [Part({"self": (first, reasons)}, len(first["wide"]))]
    return [
        *batches,
        Part({"self": ({"half": half.double()}, {})}, 7) if rank == 0 else Part.empty(),
    ]


def rank_main(rank: int, port: int, folder: str) -> None:
    store = dist.TCPStore("127.0.0.1", port, 2, rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    wholes = [join(p, 1 - i, lambda x: x, torch.device("cpu")) for i, p in enumerate(parts(rank))]
    torch.save([one and (one.seen, one.batch_size) for one in wholes], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_a_batch_comes_together_on_one_rank_and_says_what_is_missing(tmp_path: Path) -> None:
    mp.spawn(rank_main, (free_port(), str(tmp_path)), nprocs=2)
    (nothing, second), (first, nothing_too) = (torch.load(tmp_path / f"{r}.pt") for r in (0, 1))
    assert nothing is None
    assert nothing_too is None
    draw = torch.Generator().manual_seed(0)
    wide, half = torch.randn(7, 5, 3, generator=draw), torch.randn(7, 9, generator=draw).bfloat16()
    seen, size = first
    assert size == 7
    assert set(seen["self"][0]) == {"wide", "half"}
    assert torch.equal(seen["self"][0]["wide"], wide)
    assert torch.equal(seen["self"][0]["half"], half)
    reasons = seen["self"][1]
    assert reasons["only"] == "did not run in this forward"
    assert reasons["uneven"] == "gives features of other shapes on each device ((2,) and (3,))"
    seen, size = second
    assert size == 7
    assert torch.equal(gram(seen["self"][0]["half"]).diagonal, gram(half.double()).diagonal)
