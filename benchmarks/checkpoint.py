"""Saving a 200 MB checkpoint: ours beside Lightning's, to the same disk.

    python -m benchmarks checkpoint

Lightning serialises into memory, copies that, writes it under ``$TMPDIR`` and moves it; where
``$TMPDIR`` is another file system, as on most clusters, moving is copying. It doesn't sync: after
a power cut the file may be empty. Ours writes beside the final name, syncs, renames. The disk is
left idle before each turn (``os.sync``), so that none waits for what another left behind.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.table import Goal, Table

ROUNDS = 9
LIMIT = 0.3
MEGABYTES = 200
OURS = "AtomicCheckpointIO"
MEMORY = Path("/dev/shm")


def run(rounds: int = ROUNDS, megabytes: int = MEGABYTES) -> Table:
    """Save in turn by each way; compare the medians."""
    table = Table(
        "Checkpoint",
        ["way", "synced", "s", "ours as a ratio to it"],
        note=f"{megabytes} MB of weights and Adam's averages to one disk, {rounds} times in turn.",
    )
    # beside the project, where checkpoints go: /tmp may be memory
    with tempfile.TemporaryDirectory(dir=Path(__file__).parents[1], prefix=".bench-") as folder:
        seconds = measure(Path(folder), rounds, megabytes)
    table.add(OURS, "yes", f"{statistics.median(seconds[OURS]):.2f}", "1.00")
    for way in [name for name in seconds if name != OURS]:
        pairs = zip(seconds[OURS], seconds[way], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        table.add(way, "no", f"{statistics.median(seconds[way]):.2f}", f"{ratio:.2f}")
        if "another" in way:
            table.goals.append(Goal(f"time beside {way}", ratio, LIMIT))
    return table


def measure(folder: Path, rounds: int, megabytes: int) -> dict[str, list[float]]:
    """Return the seconds of each way in each round, after a round to warm up."""
    state = make_state(megabytes)
    ways = _ways(folder)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, save in ways.items():
            file = folder / f"{turn}.ckpt"
            os.sync()
            begun = time.perf_counter()
            save(state, file)
            if turn:
                seconds[name].append(time.perf_counter() - begun)
            file.unlink()
    return seconds


def make_state(megabytes: int) -> dict[str, Any]:
    """Return what a checkpoint of a model trained by Adam holds: weights and two averages."""
    import torch

    layers = range(max(1, megabytes * 10**6 // (3 * 4 * 1024**2)))
    weights = {f"layer.{layer}.weight": torch.randn(1024, 1024) for layer in layers}
    averages = {n: {k: torch.randn(1024, 1024) for k in ("exp_avg", "exp_avg_sq")} for n in layers}
    return {"state_dict": weights, "optimizer_states": [{"state": averages}]}


def _ways(folder: Path) -> dict[str, Callable[[dict[str, Any], Path], None]]:
    from lightning_fabric.plugins.io import TorchCheckpointIO

    from mlmodeldev.training.checkpoint_io import AtomicCheckpointIO

    def lightning(temporary: Path) -> Callable[[dict[str, Any], Path], None]:
        def save(state: dict[str, Any], file: Path) -> None:
            with mock.patch.object(tempfile, "tempdir", str(temporary)):
                TorchCheckpointIO().save_checkpoint(state, file)

        return save

    ways = {
        OURS: AtomicCheckpointIO().save_checkpoint,
        "Lightning, $TMPDIR on the same disk": lightning(folder),
    }
    if MEMORY.is_dir():
        ways["Lightning, $TMPDIR on another file system"] = lightning(MEMORY)
    return ways


if __name__ == "__main__":
    print(run().text())
