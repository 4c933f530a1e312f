"""A picture that a model logs, whatever it is made of, in one form for all trackers that need one.

Example::

    as_picture(torch.rand(3, 8, 8)).save("picture.png")
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

_CHANNELS = (1, 3, 4)


def as_picture(image: Any) -> Image:
    """Return a copy of a picture, as it is now.

    Args:
        image: a file, a picture of Pillow, a figure of matplotlib, or an array or tensor of height
            and width, with 1, 3 or 4 channels before or after them; floats of 0 to 1, or whole
            numbers of 0 to 255.

    Raises:
        ValueError: it has another shape.
        OSError: the file can't be read.
    """
    from PIL import Image

    if isinstance(image, str | Path):
        with Image.open(image) as opened:
            return opened.copy()
    if isinstance(image, Image.Image):
        return image.copy()
    if hasattr(image, "savefig"):
        drawn = io.BytesIO()
        image.savefig(drawn, format="png")
        return Image.open(drawn)
    return Image.fromarray(_pixels(image))


def pass_over(tracker: str, key: str, error: Exception) -> None:
    """Warn of what a tracker can't take as a picture, which is not worth a trial or a row."""
    reason = f"{type(error).__name__}: {error}"
    warnings.warn(f"{tracker}: {key} is passed over: no picture ({reason})", stacklevel=3)


def _pixels(image: Any) -> Any:
    """Return an array of bytes, channels last."""
    import numpy as np

    tensor = hasattr(image, "detach")
    values = image.detach().cpu().float().numpy() if tensor else np.asarray(image)
    whole = not (image.is_floating_point() if tensor else values.dtype.kind == "f")
    if values.ndim == 3 and values.shape[-1] not in _CHANNELS and values.shape[0] in _CHANNELS:
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[-1] in _CHANNELS):
        raise ValueError(f"no picture has the shape {tuple(values.shape)}")
    scaled = values if whole else np.nan_to_num(values) * 255
    return scaled.clip(0, 255).astype(np.uint8)
