"""Images as tensors, the same way in training and in inference.

Example::

    read_image(Path("seven.png"), size=8, channels=1, mean=0.305, std=0.376)

Larger images are made smaller by the mean over each new pixel's area (Pillow's BOX). For the
digits that is exact: theirs are counts of dark points over the squares of a finer grid. A file is
read as a person sees it: see `decoding`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlmodeldev.data.decoding import NotShown, as_seen
from mlmodeldev.errors import UsageError
from mlmodeldev.machine import cores

READER = 2
"""Changes when files are read into other pixels than before: prepared arrays are then made anew."""


def read_image(
    path: Path, size: int, channels: int, mean: float, std: float, crop: bool = False
) -> Tensor:
    """Read an image file as (channels, size, size), scaled to 0..1, then normalised.

    Args:
        crop: keep the proportions and take the middle; else the whole image is squeezed.

    Raises:
        UsageError: the file is missing, no image, too large, or can't be shown.
    """
    image = _read(path, size, channels, crop)
    pixels = np.array(image, dtype=np.float32).reshape(size, size, channels).transpose(2, 0, 1)
    return torch.from_numpy((pixels / 255 - mean) / std)


def read_pixels(path: Path, size: int) -> np.ndarray:
    """Read the middle of a photograph as (size, size, 3), uint8; see `read_image`."""
    return np.array(_read(path, size, 3, crop=True), dtype=np.uint8)


def _read(path: Path, size: int, channels: int, crop: bool) -> Any:
    """Return a Pillow image: colours as bytes; grey as floats, which nothing is rounded in."""
    from PIL import Image

    try:
        # Not by its name: Pillow would map an uncompressed TIFF, in which it turns it wrongly.
        # From memory: a file's reader makes a buffer as large as a damaged length says.
        with io.BytesIO(path.read_bytes()) as file, Image.open(file) as image:
            if channels == 3 and crop:
                image.draft("RGB", (size, size))  # a JPEG is decoded at 1/2 to 1/8: much faster
            seen = as_seen(image, channels)
            box = _middle(seen.size) if crop else None
            finer = min(seen.size) >= size
            filter_ = Image.Resampling.BOX if finer else Image.Resampling.BILINEAR
            return seen.resize((size, size), filter_, box)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except NotShown as error:
        raise UsageError(f"{path}: can't be shown: {error}; save it with 8 bits") from None
    except Image.DecompressionBombError as error:
        raise UsageError(f"{path}: is too large ({error})") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever Pillow's many readers raise for damaged bytes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path}: is no image ({reason})") from None


def _middle(shape: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = shape
    side = min(shape)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def normalised(pixels: np.ndarray, mean: float, std: float) -> Tensor:
    """Return pixels (batch, height, width, channels), uint8, as (batch, channels, height, width).

    They are scaled to 0..1, and then have ``mean`` taken off and are divided by ``std``.
    """
    values = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1)))
    return values.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)


def mean_and_std(pixels: np.ndarray) -> tuple[float, float]:
    """Return both of all pixels (images, ...), uint8, scaled to 0..1, without a larger copy."""
    counts = np.zeros(256)
    for at in range(0, len(pixels), 1000):
        counts += np.bincount(pixels[at : at + 1000].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = float(np.average(values, weights=counts))
    return mean, float(np.average((values - mean) ** 2, weights=counts) ** 0.5)


def decode_all(paths: Sequence[Path], out: np.ndarray) -> dict[int, str]:
    """Read images into ``out`` (count, size, size, 3), uint8, in threads; the middle of each.

    Pillow decodes outside of Python's lock, so threads use all cores without a second process.

    Returns:
        What is wrong with those that can't be read, by their number; their pixels stay 0.
    """
    size = out.shape[1]

    def one(number: int) -> str:
        try:
            out[number] = read_pixels(paths[number], size)
        except UsageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(cores()) as pool:
        problems = pool.map(one, range(len(paths)))
        return {number: problem for number, problem in enumerate(problems) if problem}
