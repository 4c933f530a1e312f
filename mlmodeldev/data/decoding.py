"""An image file as a person sees it, whatever it is encoded in; or refused in one line.

    with Image.open(path) as image:
        grey = as_seen(image, channels=1)      # Pillow mode F, 0 to 255, not rounded
        colours = as_seen(image, channels=3)   # Pillow mode RGB

- Turned by its EXIF orientation.
- Transparent parts lie over white, as on a page. What colour a fully transparent pixel has says
  nothing: programs leave anything there.
- 16-bit grey is scaled by its whole range, 0 to 65535; 16-bit colours likewise (Pillow does that).
- Floats are shown from 0 to 1. Others have no agreed range, nor have 32-bit integers: refused.
- Where a TIFF says that 0 is white, it is.

Without colour management: pixels of CMYK and of wide gamuts are converted by formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_UPRIGHT = 1


class NotShown(Exception):
    """Pixels without an agreed meaning; says which."""


def as_seen(image: Any, channels: int) -> Any:
    """Return an opened Pillow image as mode ``F`` (1 channel) or ``RGB`` (3), each 0 to 255.

    Raises:
        NotShown: its numbers have no range that everybody would show alike.
        Exception: whatever Pillow raises for a damaged file.
    """
    from PIL import Image, ImageOps

    image.load()  # TIFF turns itself as it is loaded
    if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        grey = Image.fromarray(_deep_grey(image))
        return grey if channels == 1 else _rounded(grey).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("L").convert("F") if channels == 1 else image.convert("RGB")


def _deep_grey(image: Any) -> np.ndarray:
    """Return grey of more than 8 bits as (height, width), float32, 0 to 255."""
    pixels = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= 1):  # NaN too
            raise NotShown(f"its pixels are floats from {low:g} to {high:g}, not from 0 to 1")
        grey = pixels * 255
    elif image.mode == "I" and image.format != "PPM":  # there, Pillow has scaled to 65535
        raise NotShown("its pixels are 32-bit integers, which have no agreed range")
    else:
        grey = pixels / 257  # 65535 is 255
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        grey = 255 - grey
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[pixels == clear] = 255
    return grey.astype(np.float32)


def _rounded(grey: Any) -> Any:
    from PIL import Image

    return Image.fromarray(np.rint(np.asarray(grey)).astype(np.uint8))
