"""Cached arrays: made once from their inputs, memory-mapped by every trial and every rank.

Example::

    key = {"input": fingerprint(file), "max_length": 48}
    tokens = cached_arrays(folder, "tokens", key, write)        # write(folder) saves input_ids.npy
    tokens.array("input_ids")                              # a memory map, nothing is read yet

The folder's name is a digest of the key: digests of the inputs, settings, and the source of the
function that makes it. So what other inputs or settings made can't be read by mistake, and an old
trial still finds its own. One process makes it, with a name that appears when it is complete; the
others wait. ``prepared.json`` in it holds the key, and size and SHA-256 of each file: a folder
with a damaged or missing file is made again (`mlmodeldev.data.soundness`).
"""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmodeldev.atomic import (
    make_folder,
    publish,
    remove,
    write_shared,
    writing_to,
)
from mlmodeldev.data.soundness import damage, note_sound
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.files import SIDE, free_bytes, human, remove_if_empty
from mlmodeldev.fetch.lock import Claim, ClaimLost, one_worker
from mlmodeldev.fetch.progress import LINE_SECONDS
from mlmodeldev.fetch.verify import hash_file
from mlmodeldev.machine import user_cache
from mlmodeldev.synced import sync_file_system

MARKER = "prepared.json"
Make = Callable[[Path], Mapping[str, Any] | None]
"""Fills an empty folder; may return metadata, which must be JSON."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedArrays:
    """A folder of arrays, whole.

    Attributes:
        folder: where they lie.
        key: what they were made of.
        metadata: what the maker returned, such as counts.
        files: size and SHA-256 of each file, by its path in the folder.
    """

    folder: Path
    key: Mapping[str, Any]
    metadata: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]

    def array(self, name: str) -> np.ndarray:
        """Return ``NAME.npy`` as a read-only memory map, shared by all that map it."""
        mapped: np.ndarray = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return mapped

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(int(file["bytes"]) for file in self.files.values())


def cached_arrays(directory: Path, name: str, key: Mapping[str, Any], make: Make) -> CachedArrays:
    """Return what ``make`` has made of this key, making it if nobody has.

    Args:
        directory: a folder shared by trials and ranks. One that can't be written is looked into,
            and what is missing goes to ``$XDG_CACHE_HOME/mlmodeldev/prepared``.
        name: begins the folder's name, ``NAME-DIGEST``.
        key: everything that the result depends on; must be JSON. The source of ``make`` is added,
            not that of what it calls.
        make: called in one process only, with an empty folder.

    Raises:
        UsageError: the disk is full or can't be written, or what ``make`` raises.
    """
    key = {**key, "make": _source(make)}
    label = f"{name}-{_digest(key)[:12]}"
    cache = user_cache()
    places = [directory / label, *([cache / "prepared" / label] if cache else [])]
    for place in places:
        cached = open_cached(place, key)
        if cached:
            return cached
    place = places[0] if _writable(directory) else places[-1]
    return make_once(place, key, make)


def make_once(target: Path, key: Mapping[str, Any], make: Make) -> CachedArrays:
    """Make ``target`` in one process among many; see `cached_arrays`."""
    with writing_to(target):
        side = make_folder(target.parent / SIDE)
    cached = open_cached(target, key)
    try:
        while cached is None:
            _make_or_wait(target, key, make)
            cached = open_cached(target, key)
    finally:
        remove_if_empty(side)
    return cached


def _make_or_wait(target: Path, key: Mapping[str, Any], make: Make) -> None:
    def ready() -> bool:
        return open_cached(target, key) is not None

    lock = target.parent / SIDE / f"{target.name}.lock"
    with suppress(ClaimLost), one_worker(lock, ready, _log_waiting(target)) as claim:
        if claim is not None:
            _make(target, key, make, claim)


def open_cached(folder: Path, key: Mapping[str, Any]) -> CachedArrays | None:
    """Return the folder's content if it is of this key and no file is missing or damaged."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        made = CachedArrays(folder, marker["key"], marker["facts"], marker["files"])
        if made.key != _plain(key):
            return None
        problem = damage(folder, made.files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if problem:
        _logger.warning("%s/%s; it is made anew", folder, problem)
    return None if problem else made


def _make(target: Path, key: Mapping[str, Any], make: Make, claim: Claim) -> None:
    side = target.parent / SIDE
    for left in side.glob(f"{target.name}.*"):  # of killed makers: the claim says that they are
        if left.is_dir():
            remove(left)
    staged = side / f"{target.name}.{claim.token[:16]}"
    with writing_to(target), _clear_disk_errors(target):
        try:
            metadata = make(make_folder(staged))
            content = {"key": key, "facts": dict(metadata or {}), "files": _describe(staged)}
            write_shared(staged / MARKER, (json.dumps(content, indent=1) + "\n").encode())
            sync_file_system(staged)
            claim.check()
            remove(target)  # torn, or there would be nothing to make
            publish(staged, target)
            note_sound(target, content["files"])
        finally:
            remove(staged)


@contextmanager
def _clear_disk_errors(target: Path) -> Iterator[None]:
    """numpy tells of a full disk without its error number: "100 requested and 60 written"."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "requested" in str(error):
            raise UsageError(f"{target}: the disk or the quota is full ({error})") from None
        raise


def new_array(file: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return a memory map of a new ``.npy`` file, for arrays larger than memory.

    Its place on the disk is taken first: writing to a map whose disk is full ends the process.

    Raises:
        UsageError: there is too little room.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    free = free_bytes(file.parent)
    if size > free:
        raise UsageError(f"{file.parent}: {human(size)} are needed, {human(free)} are free")
    array: np.ndarray = np.lib.format.open_memmap(file, "w+", dtype, shape)
    with file.open("rb+") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # some file systems can't
                raise
    return array


def _describe(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): {
            "bytes": path.stat().st_size,
            **hash_file(path, ["sha256"]),
        }
        for path in files
    }


def _log_waiting(target: Path) -> Callable[[float], None]:
    last_line = 0.0

    def waiting(waited: float) -> None:
        nonlocal last_line
        if waited - last_line >= LINE_SECONDS:
            last_line = waited
            _logger.info("%s: another process prepares it (%.0f s)", target.name, waited)

    return waiting


def _plain(key: Mapping[str, Any]) -> Any:
    try:
        return json.loads(json.dumps(key))
    except TypeError as error:
        raise UsageError(f"the key of prepared data must be JSON: {error}") from None


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()


def _source(make: Make) -> str:
    try:
        return hashlib.sha256(inspect.getsource(make).encode()).hexdigest()
    except (OSError, TypeError):  # made in a prompt, or no function
        return ""


def _writable(directory: Path) -> bool:
    with suppress(OSError):
        return os.access(make_folder(directory), os.W_OK | os.X_OK)
    return False
