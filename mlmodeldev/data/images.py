"""Images as tensors, the same way in training and in inference.

Example::

    read_image(Path("seven.png"), size=8, channels=1, mean=0.305, std=0.376)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlmodeldev.errors import UsageError


def read_image(path: Path, size: int, channels: int, mean: float, std: float) -> Tensor:
    """Read an image file as (channels, size, size), scaled to 0..1, then normalised.

    Raises:
        UsageError: the file is missing or no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            converted = image.convert("L" if channels == 1 else "RGB")
            resized = converted.resize((size, size), Image.Resampling.BILINEAR)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError) as error:
        raise UsageError(f"{path}: is no image ({error})") from None
    pixels = np.asarray(resized, dtype=np.float32).reshape(size, size, channels) / 255
    return torch.from_numpy((pixels.transpose(2, 0, 1) - mean) / std)
