"""Files that appear whole or not at all: written beside, synced, renamed.

Example::

    write_text(folder / "trial.json", json.dumps(record))
    with whole_file(folder / "last.ckpt") as file:
        torch.save(state, file)
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mlmodeldev.errors import UsageError

TEMPORARY_SUFFIX = ".tmp"
_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "no permission to write here",
    errno.EPERM: "no permission to write here",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "the folder is gone, or can't be made",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file or a broken link, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EFBIG: "the file-size limit is reached",
}


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an operating-system error of writing into one clear `UsageError`."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise UsageError(f"{path}: {reason}") from error


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that takes its name only when it is complete and on disk.

    The temporary name carries host and process, so that two attempts never write to one file.

    Raises:
        UsageError: the disk is full, or the place can't be written.
    """
    temporary = path.with_name(
        f".{path.name}.{socket.gethostname()}-{os.getpid()}{TEMPORARY_SUFFIX}"
    )
    with writing_to(path):
        try:
            encoding = None if "b" in mode else "utf-8"
            with temporary.open(mode, encoding=encoding) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same ending, for a library that writes files by name.

    Parent folders are made; on success the file takes the name ``path`` in one step.

    Raises:
        UsageError: the disk is full, or the place can't be written.
    """
    temporary = path.with_name(f".{path.stem}.{socket.gethostname()}-{os.getpid()}{path.suffix}")
    with writing_to(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_write(path, "w") as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; keys keep their order, NaN and infinity become null."""
    text = json.dumps(_finite(value), indent=1, default=str, allow_nan=False)
    write_text(path, text + "\n")


def _finite(value: Any) -> Any:
    """Replace what JSON has no word for, so that other readers than Python's take the file."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut (fsync(2) of the directory)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the name ``path`` when it is complete.

    What stood there before is replaced; a reader finds the old or the new one.
    """
    temporary = path.with_name(
        f".{path.name}.{socket.gethostname()}-{os.getpid()}{TEMPORARY_SUFFIX}"
    )
    with writing_to(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            _swap_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _swap_folder(new: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.old{TEMPORARY_SUFFIX}")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    new.rename(path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left in a folder that this process now owns."""
    for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
