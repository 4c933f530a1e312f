"""MNIST, Fashion-MNIST and CIFAR-10 as arrays, made once for all trials.

Example::

    files = image_files(folder, "mnist")
    make_arrays("mnist", files, into)           # images.npy, labels.npy; {"training": 60000, ...}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlmodeldev.data.images import mean_and_std
from mlmodeldev.data.readers import read_cifar10, read_idx
from mlmodeldev.errors import UsageError


def image_files(folder: Path, name: str) -> list[Path]:
    """Return training images and labels, then those of the test; or CIFAR-10's six files."""
    if name == "cifar10":
        names = [f"data_batch_{number}.bin" for number in range(1, 6)]
        return [folder / "cifar-10-batches-bin" / file for file in [*names, "test_batch.bin"]]
    kinds = ("images-idx3", "labels-idx1")
    return [folder / f"{part}-{k}-ubyte.gz" for part in ("train", "t10k") for k in kinds]


def make_arrays(name: str, files: list[Path], folder: Path) -> dict[str, Any]:
    """Write all images, training first, and their labels; return what else is to be known.

    Args:
        name: of the set.
        files: as `image_files` gives them.
        folder: gets ``images.npy``, (images, size, size, channels) bytes, and ``labels.npy``.

    Returns:
        ``training`` (how many images), ``mean`` and ``std`` of their pixels, scaled to 0..1.

    Raises:
        UsageError: a file is damaged, or images and labels differ in number.
    """
    if name == "cifar10":
        pairs = [read_cifar10(files[:5]), read_cifar10(files[5:])]
    else:
        arrays = [read_idx(file) for file in files]
        pairs = [(a[..., None], b) for a, b in zip(arrays[::2], arrays[1::2], strict=True)]
    training = pairs[0][0]
    images, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    if len(images) != len(labels):
        raise UsageError(f"{name}: {len(images)} images have {len(labels)} labels")
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    mean, std = mean_and_std(training)
    return {"training": len(training), "mean": mean, "std": std}
