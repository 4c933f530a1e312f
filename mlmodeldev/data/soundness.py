"""Whether prepared files are still what was written down of them, found out once a node.

A disk may lose or change bytes of a file and keep its size. So each file's SHA-256 is computed
when the data are first used on a node, and noted in memory (``/dev/shm``) by the file's number,
size and times: a change, a copy or a node that starts anew is looked at again, everything else
costs a look at the note. It takes about a second for 1.5 GB, beside the reading; above `LARGEST`
bytes in all, sizes and headers of arrays have to do.

Example::

    damage(folder, files)           # "numbers.npy: differs from its SHA-256"; "": all is well
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mlmodeldev.fetch.files import human
from mlmodeldev.fetch.verify import hash_file

LARGEST = 16 * 10**9
"""Bytes of a folder that are read to see whether they are sound."""
_WORTH_TELLING = 10**9
_MEMORY = Path("/dev/shm")

log = logging.getLogger(__name__)
_sound: set[str] = set()
"""What this process has found sound, where a node's memory takes no notes."""


def damage(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return which file is not what was written down, and how; empty: all are.

    Args:
        files: size and SHA-256 of each file, by its path in the folder.

    Raises:
        OSError: a file is missing.
    """
    for name, described in files.items():
        size = (folder / name).stat().st_size
        if size != described["bytes"]:
            return f"{name}: has {size} bytes instead of {described['bytes']}"
        if name.endswith(".npy") and not _fits_its_header(folder / name, size):
            return f"{name}: has the header of another array"
    whole = sum(int(described["bytes"]) for described in files.values())
    state = _state(folder, files)
    if whole > LARGEST or _is_noted(state):
        return ""
    if whole > _WORTH_TELLING:
        log.info("%s: looking once whether all %s are sound", folder.name, human(whole))
    for name, described in files.items():
        if hash_file(folder / name, ["sha256"])["sha256"] != described["sha256"]:
            return f"{name}: differs from its SHA-256"
    _note(state)
    return ""


def note_sound(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Remember files whose digests were computed just now."""
    with suppress(OSError):
        _note(_state(folder, files))


def _fits_its_header(file: Path, size: int) -> bool:
    """Whether an array's header is one, and tells of as many bytes as there are."""
    with file.open("rb") as opened:
        try:
            version = np.lib.format.read_magic(opened)
            read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
            shape, _, dtype = read(opened)
        except (ValueError, AttributeError, EOFError):
            return False
        count = 1
        for length in shape:
            count *= length
        return bool(dtype.hasobject or opened.tell() + count * dtype.itemsize == size)


def _state(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what changes whenever a file does."""
    whole = hashlib.sha256(str(folder.absolute()).encode())
    for name, described in sorted(files.items()):
        s = (folder / name).stat()
        kept = (name, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        whole.update(repr((*kept, described["sha256"])).encode())
    return whole.hexdigest()


def _is_noted(state: str) -> bool:
    notes = _notes()
    return state in _sound or (notes is not None and (notes / state).is_file())


def _note(state: str) -> None:
    _sound.add(state)
    notes = _notes()
    if notes is not None:
        with suppress(OSError):
            os.close(os.open(notes / state, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))


def _notes() -> Path | None:
    """Return this user's folder of notes in the node's memory; None: there is none to trust."""
    folder = _MEMORY / f"mlmodeldev-{os.getuid()}-sound"
    with suppress(OSError):
        with suppress(FileExistsError):
            folder.mkdir(0o700)
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            return folder if not status.st_mode & 0o077 else None
    return None
