"""The folder beside the data, sizes and room; how files are written there is `atomic`'s.

`write_shared`, `publish`, `make_folder` and the like give what they write the permissions of its
folder, whatever the umask is: shared caches belong to a group.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mlmodeldev.atomic import (
    make_folder,
    publish,
    remove,
    share,
    sync_file_system,
    sync_folder,
)
from mlmodeldev.atomic import write_shared as write_whole

__all__ = [
    "SIDE",
    "free_bytes",
    "human",
    "make_folder",
    "publish",
    "remove",
    "remove_if_empty",
    "share",
    "sync_file_system",
    "sync_folder",
    "write_whole",
]

SIDE = ".fetch"
"""Folder beside the data for locks, markers and unfinished files."""


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
