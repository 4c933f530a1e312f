"""Which software a trial runs with, in its record; and what differs when it goes on."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import mlmodeldev

LIBRARY = Path(mlmodeldev.__path__[0])
"""The library's own folder: a clone's, an installed wheel's, or a snapshot's."""


def software() -> dict[str, Any]:
    """Return what a record says under ``software``: versions, and a digest of the library."""
    return {
        "library": mlmodeldev.__version__,
        "library_digest": library_digest(),
        "torch": torch_version(),
        "python": platform.python_version(),
    }


def torch_version() -> str | None:
    """Return torch's version with its build, such as ``2.13.0+cpu``; None where there is none."""
    try:
        return metadata.version("torch")  # without importing it, which takes seconds
    except metadata.PackageNotFoundError:
        return None


def library_files(library: Path = LIBRARY) -> Iterator[Path]:
    """Yield a library's files, relative to its folder, in order; not what Python makes of them."""
    for path in sorted(library.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(library)


@functools.cache
def library_digest() -> str:
    """Return the digest of the library that runs."""
    return digest_of_library(LIBRARY)


def digest_of_library(library: Path) -> str:
    """Return 16 hexadecimal digits made of the names and contents of a library's files."""
    digest = hashlib.sha256()
    for name in library_files(library):
        digest.update(f"{name.as_posix()}\0".encode())
        digest.update(hashlib.sha256((library / name).read_bytes()).digest())
    return digest.hexdigest()[:16]


def torch_difference(record: Mapping[str, Any]) -> str:
    """Return how torch differs from the one that a trial was begun with; nothing: an empty text.

    Another torch adds in another order, so that the trial need not end with the weights that it
    would have had.
    """
    before, now = (record.get("software") or {}).get("torch"), torch_version()
    if before is None or before == now:
        return ""
    return f"torch {before} when this trial began, {now} now: its weights may come out otherwise"
