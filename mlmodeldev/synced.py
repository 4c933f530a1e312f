"""What survives a power cut: files and folders brought to the disk, and folders made for good.

A file's bytes are on disk once it was synced, its name once its folder was: neither brings the
other. So a new folder is synced into the one above it, or all that it will hold is lost with it.

Example::

    make_synced(runs / "digits" / "ab12cd34" / "checkpoints")
    sync_tree(folder)                       # a few files, one by one
    sync_file_system(folder)                # a hundred thousand
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES}


def make_synced(path: Path) -> Path:
    """Create ``path`` and the missing folders above it, and bring their names to the disk.

    Raises:
        OSError: it can't be made.
    """
    if not path.is_dir():
        make_synced(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            sync_folder(path.parent)
        if not path.is_dir():
            number = errno.ENOTDIR if path.exists() else errno.EEXIST  # a file, or a broken link
            raise OSError(number, os.strerror(number), str(path))
    return path


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut, where the file system can do that."""
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def sync_tree(folder: Path) -> None:
    """Write a folder's files and folders to the disk, one by one: for a few files."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(place, name)
            if file.is_file() and not file.is_symlink():
                sync_file(file)
        sync_folder(Path(place))


def sync_file_system(path: Path) -> None:
    """Flush everything written below ``path``: one call for a tree of a hundred thousand files.

    ``syncfs(2)`` leaves other file systems alone; where libc lacks it, all are flushed.
    """
    import ctypes

    descriptor = os.open(path, os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    except (AttributeError, OSError):
        os.sync()
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
