"""How fast batches come: `ExactLoader` beside torch's DataLoader, on the same memory maps.

Example::

    python -m benchmarks data

All read the same files and make the same tensors: tokens as int64; images cut at random,
mirrored, and normalised. torch's way is a dataset that makes one example at a time, with torch's
own collate function and random order. Ours makes whole batches, and draws order and augmentation
from (seed, epoch, index), so that any batch can be made again. "Taken over" is torch's DataLoader
as a user writes it, made to resume (`ResumableLoader`). Epochs of each run in turn.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.table import Goal, Table
from examples.coco import ImageCaptions
from mlmodeldev.data.datasets import Rows
from mlmodeldev.data.loader import ExactLoader
from mlmodeldev.data.takeover import Place, ResumableLoader

BATCH = 64
SIZE, STORED, LENGTH = 64, 72, 64
MEAN, STD = 0.449, 0.277


class PlainTokens(Dataset[dict[str, torch.Tensor]]):
    """Memory-mapped tokens, one sentence at a time."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["label"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        batch = {n: torch.as_tensor(a[index].astype(np.int64)) for n, a in self.arrays.items()}
        return {"index": torch.tensor(index), **batch}


class PlainImages(Dataset[dict[str, torch.Tensor]]):
    """Decoded images in a memory map, one at a time, with captions."""

    def __init__(self, images: np.ndarray, captions: dict[str, np.ndarray]) -> None:
        self.images, self.captions = images, captions

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        top, left = torch.randint(0, STORED - SIZE + 1, (2,)).tolist()
        pixels = self.images[index, top : top + SIZE, left : left + SIZE]
        if torch.rand(()) < 0.5:
            pixels = pixels[:, ::-1]
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        which = int(torch.randint(5, ()))
        tokens = {
            name: torch.from_numpy(array[index, which].astype(np.int64))
            for name, array in self.captions.items()
        }
        return {
            "index": torch.tensor(index),
            "label": torch.tensor(index),
            "image": (image.float() / 255 - MEAN) / STD,
            **tokens,
        }


def run(rows: int = 20_000, images: int = 3_000, epochs: int = 5) -> Table:
    """Time epochs of each loader in turn; compare the medians."""
    torch.set_num_threads(1)
    table = Table(
        "Loader",
        ["data", "workers", "ours, examples/s", "DataLoader, examples/s", "ours as a ratio"],
        note=f"Batches of {BATCH} from memory maps: sentences of {LENGTH} tokens; decoded images,"
        f" cut to {SIZE}x{SIZE}, mirrored, normalised, with a caption. {epochs} epochs of each in"
        f" turn, medians. Load of the machine before, by other jobs: {os.getloadavg()[0]:.1f}.",
    )
    with tempfile.TemporaryDirectory() as folder:
        ways = {"tokens": _tokens(Path(folder), rows), "images": _images(Path(folder), images)}
        for name, (ours, plain) in ways.items():
            for workers in (0, 2):
                exact = ExactLoader(ours, BATCH, 0, shuffle=True, drop_last=True, workers=workers)
                taken = ResumableLoader(_torchs(plain, workers), Place())
                for kind, loader in ((name, exact), (f"{name}, taken over", taken)):
                    rates = _measure(loader, _torchs(plain, workers), len(ours), epochs)
                    ratio = rates[0] / rates[1]
                    table.add(kind, workers, *(f"{rate:,.0f}" for rate in rates), f"{ratio:.2f}")
                    goal = f"time beside DataLoader, {kind}, {workers} workers"
                    table.goals.append(Goal(goal, 1 / ratio, 1.0))
    return table


def _torchs(data: Dataset[Any], workers: int) -> DataLoader[Any]:
    return DataLoader(
        data,
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _measure(
    ours: ExactLoader | ResumableLoader, theirs: DataLoader[Any], count: int, epochs: int
) -> list[float]:
    """Return the examples a second of both."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(epochs + 1):
        for loader, times in zip((ours, theirs), taken, strict=True):
            seconds = _epoch(loader)
            if turn:  # the first one starts workers and fills the disk's cache
                times.append(seconds)
    ours.close()
    return [count // BATCH * BATCH / statistics.median(times) for times in taken]


def _epoch(loader: Iterable[Any]) -> float:
    begun = time.perf_counter()
    for batch in loader:
        assert len(batch["index"]) == BATCH
    return time.perf_counter() - begun


def _tokens(folder: Path, count: int) -> tuple[Rows, PlainTokens]:
    draw = np.random.default_rng(0)
    arrays = {
        "input_ids": draw.integers(0, 8000, (count, LENGTH), np.int32),
        "attention_mask": np.ones((count, LENGTH), np.uint8),
        "label": draw.integers(0, 2, count, np.uint8),
    }
    mapped = {name: _mapped(folder / f"{name}.npy", array) for name, array in arrays.items()}
    return Rows(mapped, np.arange(count)), PlainTokens(mapped)


def _images(folder: Path, count: int) -> tuple[ImageCaptions, PlainImages]:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, STORED, STORED, 3), np.uint8)
    mapped = _mapped(folder / "images.npy", images)
    shape = (count, 5, 32)
    captions = {
        "input_ids": _mapped(folder / "ids.npy", draw.integers(0, 8000, shape, np.int32)),
        "attention_mask": _mapped(folder / "mask.npy", np.ones(shape, np.uint8)),
    }
    scale = (MEAN, STD)
    ours = ImageCaptions(mapped, captions, np.arange(count), 0, True, SIZE, scale)
    return ours, PlainImages(mapped, captions)


def _mapped(file: Path, array: np.ndarray) -> np.ndarray:
    np.save(file, array)
    mapped: np.ndarray = np.load(file, mmap_mode="r")
    return mapped


if __name__ == "__main__":
    print(run().text())
