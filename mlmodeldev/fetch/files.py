"""The folder beside the data, sizes, and what room there is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

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
