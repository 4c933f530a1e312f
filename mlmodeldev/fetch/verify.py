"""Proof that a file is whole, kept beside it, so that nothing is hashed twice.

Example::

    if not is_verified(path, source):
        digests = check_file(path, source)     # reads the whole file once
        mark_verified(path, digests)

The marker ``.fetch/NAME.json`` holds size, modification time and digests. A file that was changed
or copied since has another modification time and is hashed again. Where the folder can't be
written (a read-only shared cache) the marker goes to ``$XDG_CACHE_HOME/mlmodeldev/verified``.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import make_folder, write_shared
from mlmodeldev.fetch.files import SIDE
from mlmodeldev.fetch.source import FetchError, Source
from mlmodeldev.machine import user_cache

_CHUNK = 4 << 20


def is_verified(path: Path, source: Source) -> bool:
    """Say whether ``path`` is whole, from its marker alone: no byte of the file is read."""
    record = _record_of(path)
    if not record or source.bytes not in (None, record["bytes"]):
        return False
    return source.digest is None or record.get(source.digest[0]) == source.digest[1]


def recorded_digest(path: Path) -> str | None:
    """Return the SHA-256 that the marker holds for the file as it is now, or ``None``."""
    return _record_of(path).get("sha256")


def check_file(path: Path, source: Source) -> dict[str, str]:
    """Read the file and return its digests.

    Raises:
        FetchError: Its size or its digest is not that of ``source``.
    """
    check_size(path, source)
    digests = hash_file(path, algorithms_for(source))
    check_digests(digests, source)
    return digests


def check_size(path: Path, source: Source) -> None:
    """Raise ``FetchError`` unless the file has exactly the size of ``source``, if it is known."""
    size = path.stat().st_size
    if source.bytes is not None and size != source.bytes:
        raise FetchError(f"{source.name} has {size} bytes instead of {source.bytes}")


def check_digests(digests: dict[str, str], source: Source) -> None:
    """Raise ``FetchError`` unless the digests are those of ``source``, if they are known."""
    for algorithm in ("sha256", "md5"):
        expected = getattr(source, algorithm)
        if expected and digests.get(algorithm, expected) != expected:
            raise FetchError(
                f"{source.name} has the {algorithm} {digests[algorithm]} instead of {expected}"
            )


def wrong_content(reason: str) -> tuple[str, str, str] | None:
    """Return which file a source sent otherwise, what was expected, and what came.

    Args:
        reason: the text of an error that `check_size` or `check_digests` has begun.
    """
    if match := re.search(r"(\S+) has the (sha256|md5) (\w+) instead of (\w+)", reason):
        name, kind, now, expected = match.groups()
        return name, f"{kind} {expected[:16]}", f"{kind} {now[:16]}"
    if match := re.search(r"(\S+) has (\d+) bytes instead of (\d+)", reason):
        return match[1], f"{match[3]} bytes", f"{match[2]} bytes"
    return None


def algorithms_for(source: Source) -> list[str]:
    """Return what to compute: always SHA-256 (runs record it), MD5 where nothing else is known."""
    return ["sha256", "md5"] if source.md5 and not source.sha256 else ["sha256"]


def hash_file(path: Path, algorithms: list[str]) -> dict[str, str]:
    """Return the hexadecimal digests of a file."""
    import hashlib

    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            for value in hashes.values():
                value.update(chunk)
    return {name: value.hexdigest() for name, value in hashes.items()}


def mark_verified(path: Path, digests: dict[str, str]) -> None:
    """Write the marker for the file as it is now; in the user's cache if need be, or nowhere."""
    status = path.stat()
    record = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, **digests}
    content = (json.dumps(record, indent=2) + "\n").encode()
    for marker in _markers(path):
        with suppress(OSError):
            write_shared(make_folder(marker.parent) / marker.name, content)
            return


def forget(path: Path) -> None:
    """Remove the markers of a file."""
    for marker in _markers(path):
        with suppress(OSError):
            marker.unlink()


def renew_times(path: Path) -> None:
    """Set the file's times to now and keep its marker valid (scratch file systems purge by age)."""
    record = _record_of(path)
    os.utime(path)
    if record:
        mark_verified(path, {key: record[key] for key in ("sha256", "md5") if key in record})


def _record_of(path: Path) -> dict[str, Any]:
    """Return what a marker says of the file as it is now; nothing if there is none, or no file."""
    with suppress(OSError):
        status = path.stat()
        for marker in _markers(path):
            record = _read(marker)
            if (record.get("bytes"), record.get("mtime_ns")) == (
                status.st_size,
                status.st_mtime_ns,
            ):
                return record
    return {}


def _markers(path: Path) -> list[Path]:
    """Where a marker may be: beside the file, else in the user's cache."""
    import hashlib

    cache = user_cache()
    key = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    beside = path.parent / SIDE / f"{path.name}.json"
    return [beside, *([cache / "verified" / f"{key}.json"] if cache else [])]


def _read(marker: Path) -> dict[str, Any]:
    try:
        record = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
