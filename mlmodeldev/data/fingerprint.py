"""Which data is it: a SHA-256 that costs next to nothing the second time.

Example::

    fingerprint(Path("data/cola_public/cola_public/raw/in_domain_train.tsv"))
    fingerprint(Path("data/coco_2017/val2017"))     # of the archive that it came from

A file that ``fetch`` has verified, and a folder that ``unpack`` has made, have their digests in a
marker; other files are read, and large ones get a marker of size, time and digest. A folder that
somebody else filled is told by the names and sizes of what lies in it (beyond 10,000 files, by the
names): reading 20 GB of pictures at each start would be worse than not noticing such a change.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.unpacking import unpacked_digest
from mlmodeldev.fetch.verify import hash_file, known_digest, mark_verified

_MARK_BYTES = 16_000_000
"""Smaller files are read each time; larger ones are marked."""

_MOST_SIZES = 10_000
"""In larger folders only names are looked at: a size costs each rank a request to the server."""


def fingerprint(path: Path) -> str:
    """Return 64 hexadecimal digits that differ when the content does.

    Raises:
        UsageError: there is no such file or folder, or it can't be read.
    """
    try:
        return _folder(path) if path.is_dir() else _file(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _file(path: Path) -> str:
    large = path.stat().st_size >= _MARK_BYTES
    known = known_digest(path) if large else None
    if known is None:
        digests = hash_file(path, ["sha256"])
        known = digests["sha256"]
        if large:
            mark_verified(path, digests)
    return known


def _folder(path: Path) -> str:
    return unpacked_digest(path) or _listing(path)


def _listing(path: Path) -> str:
    files = []
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent) / name for name in sorted(names)]
    with_sizes = len(files) <= _MOST_SIZES
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size if with_sizes else ""
        line = f"{file.relative_to(path)}\0{size}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
