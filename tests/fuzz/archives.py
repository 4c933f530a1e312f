"""Targets that are downloaded: archives and images."""

from __future__ import annotations

import io
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzz.mutation import (
    spoiled_bytes,
)
from tests.fuzz.target import Target, may_refuse

# --- archives

_CONTENT = {"top/a.txt": b"first\n" * 40, "top/b/c.bin": bytes(range(256)) * 3, "top/empty": b""}
_ODD_NAMES = (
    *(
        "../x",
        "/tmp/x",
        "top/../../x",
        "top\\..\\x",
        "C:/x",
        "a\0b",
        "top/a.txt",
        ".",
        "",
        "top/a.txt/z",
    ),
    *("x" * 300, "é", "\ud800", ".unpacked.json", "top/./a.txt", "a/" * 200 + "z", "-rf", "top/b"),
)


def _archive(kind: str, extra: tuple[str, bytes, str] | None = None) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
            for name, content in _CONTENT.items():
                made.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
            if extra:
                info = zipfile.ZipInfo(extra[0] or "x")
                info.external_attr = {"link": 0o120777, "device": 0o060666}.get(extra[2], 0) << 16
                made.writestr(info, extra[1])
        return out.getvalue()
    with tarfile.open(fileobj=out, mode=f"w:{kind}") as tar:  # type: ignore[call-overload]
        for name, content in _CONTENT.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if extra:
            info = tarfile.TarInfo(extra[0])
            info.type = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.BLKTYPE,
                         "fifo": tarfile.FIFOTYPE}.get(extra[2], tarfile.REGTYPE)  # fmt: skip
            info.linkname = "/etc/passwd"
            info.size = len(extra[1]) if info.type == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(extra[1]))
    return out.getvalue()


_archives = cache(lambda: {kind: _archive(kind) for kind in ("", "gz", "bz2", "xz", "zip")})


def make_archive(rng: Random) -> tuple[str, bool, bytes]:
    """Return an archive's kind, whether a member was added, and its bytes: spoilt, or as they are."""
    kind = rng.choice(("", "gz", "gz", "zip", "zip", "bz2", "xz"))
    if rng.random() < 0.35:
        kind = kind if kind in ("zip", "gz") else ""
        what = rng.choice(("file", "file", "link", "hard", "device", "fifo"))
        extra = (rng.choice(_ODD_NAMES), rng.choice((b"", b"new", b"x" * 2000)), what)
        try:
            data = _archive(kind, extra)
        except ValueError:
            data = _archives()[kind]
        return kind, True, data if rng.random() < 0.7 else spoiled_bytes(rng, data)
    return kind, False, spoiled_bytes(rng, _archives()[kind], list(_archives().values()))


def check_archive(given: tuple[str, bool, bytes], folder: Path) -> None:
    """What is unpacked is inside, and whole: content that a checksum guards is the original's."""
    from mlmodeldev.fetch.archive import ArchiveError
    from mlmodeldev.fetch.unpacking import unpack

    kind, _, data = given
    file, target = folder / "a", folder / "out"
    file.write_bytes(data)
    with may_refuse(ArchiveError) as refused:
        unpack(file, target)
    left = {path.name for path in folder.iterdir()} - {"a", "out"}
    assert not left, left
    assert target.exists() is not bool(refused)
    if refused or data[:4] == b"":
        return
    assert all(not path.is_symlink() for path in target.rglob("*"))
    read_back = {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }
    read_back.pop(".unpacked.json", None)
    if kind:  # plain tar has a sum of its headers alone
        for name, content in read_back.items():
            assert content in (*_CONTENT.values(), b"new", b"x" * 2000), f"{name}: damaged content"
    if not given[1] and kind:
        assert len(read_back) == len(_CONTENT), f"members are missing: {sorted(read_back)}"


# --- images


@cache
def _images() -> tuple[bytes, ...]:
    from PIL import Image

    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8))
    made = []
    for kind, mode in (("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("PNG", "L"),
                       ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "RGB"),
                       ("TIFF", "RGB"), ("TIFF", "F"), ("TIFF", "1"), ("WEBP", "RGB"), ("PPM", "RGB"),
                       ("ICO", "RGBA"), ("TGA", "RGB"), ("PCX", "RGB"), ("SGI", "RGB")):  # fmt: skip
        image = (
            colours.convert("L").convert("I").convert(mode)
            if mode == "I;16"
            else colours.convert(mode)
        )
        out = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        more = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
        image.save(out, kind, **more)
        made.append(out.getvalue())
    return tuple(made)


def make_image(rng: Random) -> tuple[bytes, int, bool]:
    """Return an image file, spoilt, and how it is to be read."""
    return (
        spoiled_bytes(rng, rng.choice(_images()), _images()),
        rng.choice((1, 3)),
        rng.random() < 0.5,
    )


def check_image(given: tuple[bytes, int, bool], folder: Path) -> None:
    """An image becomes numbers from 0 to 1 of the shape asked for, or is refused."""
    from mlmodeldev.data.images import read_image

    data, channels, crop = given
    file = folder / "x.png"
    file.write_bytes(data)
    with may_refuse():
        pixels = read_image(file, 8, channels, 0.0, 1.0, crop)
        assert tuple(pixels.shape) == (channels, 8, 8)
        assert -0.01 <= float(pixels.min()) <= float(pixels.max()) <= 1.01


TARGETS = [
    Target(
        "archives",
        ("mlmodeldev.fetch.archive", "mlmodeldev.fetch.tar_stream", "mlmodeldev.fetch.unpacking"),
        make_archive,
        check_archive,
    ),
    Target(
        "images", ("mlmodeldev.data.images", "mlmodeldev.data.decoding"), make_image, check_image
    ),
]
