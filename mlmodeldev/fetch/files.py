"""Writing in shared folders: whole or not at all, readable by those who may read the folder.

Example::

    write_whole(path, b"...")          # temporary file beside it, fsync, rename
    publish(staged, target)            # rename a finished file or folder into place

Shared caches belong to a group, while many accounts have the umask 077: so a new file gets the
read and write permissions of its folder, whatever the umask is.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

SIDE = ".fetch"
"""Folder beside the data for locks, markers and unfinished files."""


def share(path: Path) -> None:
    """Give ``path`` the permissions of the folder that it lies in (execute for folders only)."""
    wanted = stat.S_IMODE(path.parent.stat().st_mode)
    if not path.is_dir():
        wanted &= 0o666
    with suppress(OSError):  # another user's file, or a file system without permissions
        path.chmod(wanted | stat.S_IRUSR | stat.S_IWUSR)


def make_folder(path: Path) -> Path:
    """Create ``path`` and the missing folders above it, shared as the first one that exists."""
    if not path.is_dir():
        make_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir()
            share(path)
    return path


def sync_folder(path: Path) -> None:
    """Make renames in a folder last through a crash, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` so that a reader sees the old file or the new one, never a part."""
    staged = path.with_name(f"{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with staged.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def publish(staged: Path, target: Path) -> None:
    """Rename ``staged`` to ``target`` on the same file system, so that it stays after a crash.

    Raises:
        FileNotFoundError: ``staged`` is gone: another worker has taken it over.
    """
    staged.replace(target)
    share(target)
    sync_folder(target.parent)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; never follow a link."""
    if path.is_dir() and not path.is_symlink():
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def remove_if_empty(path: Path) -> None:
    """Remove a folder that holds nothing."""
    with suppress(OSError):
        path.rmdir()


def free_bytes(path: Path) -> int:
    """Return what an unprivileged user can still write below ``path``, in bytes."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def human(size: float) -> str:
    """Write a size in bytes with a decimal unit, as disks and quotas do.

    >>> human(376971)
    '377 kB'
    >>> human(19336861798)
    '19.3 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
