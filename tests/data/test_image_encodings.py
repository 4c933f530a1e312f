"""One picture in every encoding is one picture; what has no agreed look is refused.

The oracle is the array that the files are made of; 16-bit colours are written by hand, as Pillow
can't.
"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from mlmodeldev.data.images import decode_all, read_image
from mlmodeldev.errors import UsageError

SEVEN = np.kron(
    np.array(
        [[0, 0, 0, 0, 0], [0, 255, 255, 255, 0], [0, 0, 0, 190, 0], [0, 0, 120, 60, 0],
         [0, 0, 255, 0, 0], [0, 0, 200, 0, 0], [0, 10, 0, 0, 0]], np.uint8),
    np.ones((8, 8), np.uint8),
)  # fmt: skip
UP = {1: 0, 3: 2, 6: 1, 8: 3}
"""By EXIF orientation: quarter turns to the left that the stored pixels have had."""


def png16(path, pixels, mode):
    """Write (height, width, samples), uint16, as the PNG standard says; mode is its colour type."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 16, mode, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def save(name, image, **options):
    def write(folder):
        image.save(folder / name, **options)
        return folder / name

    return write


def deep(name, mode, *samples):
    def write(folder):
        png16(folder / name, np.dstack([np.asarray(s, np.uint16) * 257 for s in samples]), mode)
        return folder / name

    return write


def turned(name, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(name, Image.fromarray(np.rot90(SEVEN, UP[orientation])), exif=exif, **options)


GREY = Image.fromarray(SEVEN)
INK = Image.merge("LA", (Image.new("L", GREY.size, 0), Image.fromarray(255 - SEVEN)))
OPAQUE = np.full_like(SEVEN, 255)
FILES = {
    "grey": save("a.png", GREY),
    "colours": save("a.png", GREY.convert("RGB")),
    "palette": save("a.png", GREY.convert("P")),
    "gif": save("a.gif", GREY),
    "webp": save("a.webp", GREY.convert("RGB"), lossless=True),
    "16 bits": deep("a.png", 0, SEVEN),
    "16 bits by pillow": save("a.png", Image.fromarray(SEVEN.astype(np.uint16) * 257)),
    "16 bits with alpha": deep("a.png", 4, SEVEN, OPAQUE),
    "16-bit colours": deep("a.png", 2, SEVEN, SEVEN, SEVEN),
    "16-bit colours with alpha": deep("a.png", 6, SEVEN, SEVEN, SEVEN, OPAQUE),
    "16-bit tiff": save("a.tif", Image.fromarray(SEVEN.astype(np.uint16) * 257)),
    "16-bit tiff, 0 is white": save(
        "a.tif", Image.fromarray((255 - SEVEN).astype(np.uint16) * 257), tiffinfo={262: 0}
    ),
    "16-bit pgm": save("a.pgm", Image.fromarray(SEVEN.astype(np.uint16) * 257)),
    "float tiff": save("a.tif", Image.fromarray(SEVEN.astype(np.float32) / 255)),
    "cmyk tiff": save("a.tif", GREY.convert("RGB").convert("CMYK")),
    "grey with alpha": save("a.png", Image.merge("LA", (GREY, Image.fromarray(OPAQUE)))),
    "black ink over nothing": save("a.png", INK),
    "ink in colours over nothing": save("a.png", INK.convert("RGBA")),
    "palette, one colour clear": save(
        "a.png", Image.fromarray(np.where(SEVEN == 255, 7, SEVEN)).convert("P"), transparency=7
    ),
    "grey, one value clear": save(
        "a.png", Image.fromarray(np.where(SEVEN == 255, 7, SEVEN)), transparency=7
    ),
    **{f"png turned {n}": turned("a.png", n) for n in UP},
    **{f"tiff turned {n}": turned("a.tif", n) for n in UP},
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_encoding_is_the_same_picture(tmp_path, kind, channels):
    wanted = SEVEN.reshape(7, 8, 5, 8).mean((1, 3))
    wanted = np.stack([wanted[np.ix_(range(7), range(5))]] * channels)
    image = read_image(FILES[kind](tmp_path), 40, channels, mean=0.0, std=1.0).numpy() * 255
    # 56 rows squeezed to 40: compare the middle of each field, far from where fields are mixed
    rows = [round((8 * row + 4) * 40 / 56) for row in range(7)]
    columns = [8 * column + 4 for column in range(5)]
    assert np.abs(image[:, rows][:, :, columns] - wanted).max() <= 1.01, kind


@pytest.mark.parametrize("kind", ["photo", "cmyk"])
@pytest.mark.parametrize("orientation", UP)
def test_jpegs(tmp_path, kind, orientation):
    """Lossy, so within some grey values; turned as cameras do."""
    file = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.rot90(SEVEN, UP[orientation])).convert("RGB")
    image = image.convert("CMYK") if kind == "cmyk" else image
    image.save(file, quality=98, exif=exif)
    straight = read_image(FILES["grey"](tmp_path), 20, 1, 0.0, 1.0)
    assert (read_image(file, 20, 1, 0.0, 1.0) - straight).abs().max() < 0.03
    straight = read_image(FILES["colours"](tmp_path), 20, 3, 0.0, 1.0, crop=True)
    assert (read_image(file, 20, 3, 0.0, 1.0, crop=True) - straight).abs().max() < 0.03


@pytest.mark.parametrize(
    "name, pixels, message",
    [
        ("a.tif", SEVEN.astype(np.float32), "floats from 0 to 255, not from 0 to 1"),
        ("a.tif", SEVEN - np.float32(0.5), "floats from -0.5"),
        ("a.tif", np.full((4, 4), np.nan, np.float32), "floats from nan"),
        ("a.tif", SEVEN.astype(np.int32) * 257, "32-bit integers"),
    ],
)
def test_what_has_no_agreed_look_is_refused(tmp_path, name, pixels, message):
    Image.fromarray(pixels).save(tmp_path / name)
    for channels in (1, 3):
        with pytest.raises(UsageError, match=message) as error:
            read_image(tmp_path / name, 8, channels, 0.0, 1.0)
        assert "\n" not in str(error.value) and str(tmp_path / name) in str(error.value)


def test_half_transparent_is_half_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 4, 1, 0.0, 1.0)
    assert image.numpy() == pytest.approx(1 - Fraction(128, 255), abs=0.003)


def test_huge_and_broken_files_are_named_one_by_one(tmp_path, monkeypatch):
    """One of a thousand million points is never decoded; damage anywhere is this file's alone."""
    good = FILES["colours"](tmp_path)
    huge, whole = tmp_path / "huge.png", good.read_bytes()
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    huge.write_bytes(whole[:16] + header + crc + whole[33:])
    paths = [good, huge]
    random = np.random.default_rng(0)
    for name, options in (("a.jpg", {}), ("b.tif", {}), ("c.gif", {}), ("d.webp", {})):
        GREY.convert("RGB").save(tmp_path / name, **options)
        content = (tmp_path / name).read_bytes()
        for number in range(25):
            at = int(random.integers(len(content)))
            damaged = bytearray(content[: at + 1] if number % 2 else content)
            damaged[at : at + 8] = random.bytes(min(8, len(damaged) - at))
            paths.append(tmp_path / f"{number}-{name}")
            paths[-1].write_bytes(damaged)
    out = np.zeros((len(paths), 8, 8, 3), np.uint8)
    problems = decode_all(paths, out)
    assert 0 not in problems and out[0].any()
    assert "huge.png: is too large" in problems[1]
    assert len(problems) > 20
    assert all("\n" not in line and str(paths[n]) in line for n, line in problems.items())
