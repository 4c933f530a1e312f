"""Files and folders that appear whole or not at all: written beside, synced, renamed.

Example::

    write_text(folder / "trial.json", json.dumps(record))
    with atomic_write(folder / "last.ckpt") as file:
        torch.save(state, file)
    with replace_folder(folder / "best") as new:
        model.save_pretrained(new)

A folder is exchanged for the one before in one step (renameat2(2), RENAME_EXCHANGE). NFS and Lustre
can't do that: there the folder is exchanged by two renames under fixed names, from which
`recover_folder`, the next writer and `remove_leftovers` mend what a kill in between has left.

Shared caches belong to a group, while many accounts have the umask 077: what is written as
``shared`` gets the read and write permissions of its folder, whatever the umask is.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.synced import make_synced, sync_file, sync_folder, sync_tree

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
    errno.ELOOP: "a link in the path leads back to itself",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EFBIG: "the file-size limit is reached",
}
_NO_EXCHANGE = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


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


def copy_file(source: str, target: str) -> str:
    """Copy one of `shutil.copytree`'s files, whose own error of several has no reason."""
    with writing_to(Path(target)):
        return shutil.copy2(source, target)


# --- files


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb", shared: bool = False) -> Iterator[IO[Any]]:
    """Open a file for writing that takes its name only when it is complete and on disk.

    Args:
        path: the file; its folder exists.
        mode: ``wb``, or ``w`` for text in UTF-8.
        shared: give it the permissions of its folder, whatever the umask is.

    Raises:
        UsageError: the disk is full, or the place can't be written.
    """
    with writing_to(path), _replacing(path, mode, shared) as file:
        yield file


@contextlib.contextmanager
def _replacing(path: Path, mode: str, shared: bool) -> Iterator[IO[Any]]:
    temporary = _temporary(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    encoding = None if "b" in mode else "utf-8"
    try:
        with os.fdopen(os.open(temporary, flags, 0o666), mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path, shared)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same ending, for a library that writes files by name.

    Parent folders are made; on success the file takes the name ``path`` in one step.

    Raises:
        UsageError: the disk is full, or the place can't be written.
    """
    temporary = _temporary(path, path.suffix)
    with writing_to(path):
        try:
            make_synced(path.parent)
            yield temporary
            sync_file(temporary)
            _rename(temporary, path)
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


def write_shared(path: Path, content: bytes) -> None:
    """Write a file of a shared folder, whole or not at all; errors are the system's own."""
    with _replacing(path, "wb", shared=True) as file:
        file.write(content)


def own_file(path: Path) -> Path:
    """Make a file that is a link into somebody's cache one of its own, to be written in place."""
    if path.is_file() and (path.is_symlink() or path.stat().st_nlink > 1):
        content = path.read_bytes()
        with atomic_write(path) as file:
            file.write(content)
    return path


def publish(staged: Path, target: Path) -> None:
    """Give a finished file or folder of the same file system its name, shared as its folder is.

    What stood there before is replaced; the content must be on disk already.

    Raises:
        FileNotFoundError: ``staged`` is gone: another worker has taken it over.
    """
    if staged.is_dir() and not staged.is_symlink():
        exchange_folder(staged, target)
        share(target)
    else:
        _rename(staged, target, shared=True)


def _rename(temporary: Path, path: Path, shared: bool = False) -> None:
    temporary.replace(path)
    if shared:
        share(path)
    sync_folder(path.parent)


def _temporary(path: Path, suffix: str = "") -> Path:
    """Return a name beside ``path`` that nobody can guess, and so nobody can lay a link at."""
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}{TEMPORARY_SUFFIX}{suffix}")


def _finite(value: Any) -> Any:
    """Replace what JSON has no word for, so that other readers than Python's take the file."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- folders


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the name ``path`` when it is complete and on disk.

    What stood there before is replaced; a reader finds the old or the new one.

    Raises:
        UsageError: the disk is full, or the place can't be written.
    """
    temporary = _temporary(path)
    with writing_to(path):
        try:
            make_synced(path.parent)
            temporary.mkdir()
            yield temporary
            sync_tree(temporary)
            exchange_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def exchange_folder(new: Path, path: Path) -> None:
    """Give a folder that is on disk the name ``path``, and remove what stood there.

    Raises:
        FileNotFoundError: ``new`` is gone.
    """
    _mend_exchange(path)
    if not os.path.lexists(path):
        new.rename(path)
    elif not _exchange(new, path):
        _exchange_by_renames(new, path)
    sync_folder(path.parent)
    remove(new)  # what stood there
    remove(_next(path))
    remove(_previous(path))


def _exchange(new: Path, path: Path) -> bool:
    """Exchange two names in one step; return whether the file system can."""
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:  # a libc of before 2018, or no Linux
        return False
    names = (_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(path))
    if renameat2(*names, _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(path))


def _exchange_by_renames(new: Path, path: Path) -> None:
    """Exchange by steps of which each leaves a whole folder that `recover_folder` finds.

    Between the second and the third there is no ``path``: a reader that looks just then calls
    `recover_folder`, which does the third; so it may be done already.
    """
    remove(_next(path))
    new.rename(_next(path))
    sync_folder(path.parent)
    remove(_previous(path))
    path.rename(_previous(path))
    sync_folder(path.parent)
    try:
        _next(path).rename(path)
    except FileNotFoundError:
        if not path.is_dir():
            raise


def recover_folder(path: Path) -> bool:
    """Put in place what a killed exchange has left aside; return whether there was any.

    It touches nothing while ``path`` is there, so readers may call it beside a living writer.
    """
    for aside in (_next(path), _previous(path)):
        if not os.path.lexists(path) and aside.is_dir() and not aside.is_symlink():
            with contextlib.suppress(OSError):  # another was quicker
                aside.rename(path)
                sync_folder(path.parent)
                return True
    return False


def _mend_exchange(path: Path) -> None:
    """Finish a killed exchange; for the one process that may write here."""
    recover_folder(path)
    if os.path.lexists(path):
        remove(_next(path))
        remove(_previous(path))


def _next(path: Path) -> Path:
    return path.with_name(f".{path.name}.next")


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; never follow a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def remove_at_once(path: Path) -> None:
    """Remove a file or a folder of which no part may be taken for the whole.

    A folder loses its name first; what a kill leaves of it then is a leftover.

    Raises:
        OSError: it can't be removed.
    """
    if path.is_dir() and not path.is_symlink():
        aside = path if is_leftover(path.name) else _temporary(path)
        if aside != path:
            path.rename(aside)
            sync_folder(path.parent)
        shutil.rmtree(aside)
    else:
        path.unlink(missing_ok=True)


def is_leftover(name: str) -> bool:
    """Return whether a file or folder of this name is one that no writer has finished."""
    return name.startswith(".") and f"{TEMPORARY_SUFFIX}." in f"{name}."


def remove_leftovers(folder: Path) -> None:
    """Clear away what killed writers left in a folder that this process now owns."""
    for aside in [*folder.glob(".*.next"), *folder.glob(".*.previous")]:
        if aside.is_dir() and not aside.is_symlink():
            _mend_exchange(folder / aside.name[1:].rpartition(".")[0])
    for pattern in (f".*{TEMPORARY_SUFFIX}", f".*{TEMPORARY_SUFFIX}.*"):
        for leftover in folder.glob(pattern):
            remove(leftover)


# --- permissions of shared folders


def share(path: Path) -> None:
    """Give ``path`` the permissions of the folder that it lies in (execute for folders only).

    Not the right of everybody to write, which ``/tmp`` has.
    """
    wanted = stat.S_IMODE(path.parent.stat().st_mode) & ~(stat.S_IWOTH | stat.S_ISVTX)
    if not path.is_dir():
        wanted &= 0o666
    with contextlib.suppress(OSError):  # another's file, or a file system without permissions
        path.chmod(wanted | stat.S_IRUSR | stat.S_IWUSR)


def make_folder(path: Path) -> Path:
    """Create ``path`` and the missing folders above it, shared as the first one that exists."""
    if not path.is_dir():
        make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            share(path)
    return path
