"""Permissions: what the umask gives to others, and who may write in the runs folder."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from mlmodeldev.doctor.line import Line, Scope, fail, nearest_folder, ok, warn

STATUS = Path("/proc/self/status")


def modes(scope: Scope) -> Iterator[Line]:
    """Look at the umask and at the runs folder's mode."""
    mask = umask()
    place = nearest_folder(scope.runs)
    mode = place.stat().st_mode
    for_group = bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)
    if mask & 0o700:
        yield fail(f"umask {mask:03o}: takes your own rights from new files", "umask 022")
    elif not mask & 0o002:
        yield warn(f"umask {mask:03o}: everybody may write what you write", "umask 022")
    elif for_group and mask & 0o070:
        what = f"umask {mask:03o}: {place} belongs to a group, which can't use your trials"
        yield warn(what, "umask 002")
    elif place == scope.runs and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield warn(f"{place}: everybody may write there ({mode & 0o7777:o})", f"chmod o-w {place}")
    else:
        yield ok(f"umask {mask:03o}, {place} has mode {mode & 0o7777:o}")


def umask() -> int:
    """Return this process's umask without setting it, which other threads would notice."""
    line = re.search(r"(?m)^Umask:\s*(\d+)", STATUS.read_text())
    return int(line[1], 8) if line else 0o022
