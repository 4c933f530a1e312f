"""Copies of cached arrays on a node's own disk: one a node, whichever rank comes first, checked.

Example::

    local = staged(tokens, "auto")      # in $SLURM_TMPDIR or $TMPDIR of a job, if it has room
    local = staged(tokens, "/scratch/local/me")

Each file's SHA-256 is computed while it is copied and compared with the one that was written down
when it was made. ``auto`` never fails for want of room: it goes on with the shared folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import make_folder, writing_to
from mlmodeldev.data.cache import CachedArrays, make_once, open_cached
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.files import free_bytes, human

_CHUNK = 4 << 20
_SLACK_BYTES = 64_000_000
_WORTH_TELLING = 100_000_000

_logger = logging.getLogger(__name__)


def staged(source: CachedArrays, where: str) -> CachedArrays:
    """Return the data on this node's disk, or ``source`` itself.

    Args:
        where: ``never``; a folder; or ``auto``: ``$SLURM_TMPDIR``, or inside of a Slurm job
            ``$TMPDIR``, where it is another file system than the data's and has room.

    Raises:
        UsageError: the named folder can't be written or is too small, or ``source`` is damaged.
    """
    if where == "never":
        return source
    folder = _automatic(source) if where == "auto" else Path(where).expanduser().absolute()
    if folder is None:
        return source
    target = folder / source.folder.name
    copied = open_cached(target, source.key)
    if copied:
        return copied
    with writing_to(folder):
        make_folder(folder)
    problem = _no_room(source, folder)
    if problem and where == "auto":
        _logger.info("processing.stage=auto: %s; reading from %s", problem, source.folder)
        return source
    if problem:
        raise UsageError(f"processing.stage={where}: {problem}")
    return make_once(target, source.key, partial(_copy, source))


def _automatic(source: CachedArrays) -> Path | None:
    """Return the job's own folder, if there is one and it is elsewhere."""
    name = os.environ.get("SLURM_TMPDIR") or (
        os.environ.get("TMPDIR") if "SLURM_JOB_ID" in os.environ else None
    )
    if not name or not Path(name).is_dir():
        return None
    if os.stat(name).st_dev == source.folder.stat().st_dev:  # noqa: PTH116
        return None
    folder = Path(name) / f"mlmodeldev-{os.getuid()}"
    return folder if _make_own(folder) else None


def _make_own(folder: Path) -> bool:
    """Make a folder that nobody else can write in; a shared /tmp may have another's of that name.

    A link that somebody has put there leads to where they want it.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return is_own and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _no_room(source: CachedArrays, folder: Path) -> str:
    free = free_bytes(folder)
    if source.bytes + _SLACK_BYTES <= free:
        return ""
    return f"{folder} has {human(free)} free, {source.folder.name} needs {human(source.bytes)}"


def _copy(source: CachedArrays, folder: Path) -> Mapping[str, Any]:
    if source.bytes >= _WORTH_TELLING:
        _logger.info("%s: copying %s to this node", source.folder.name, human(source.bytes))
    for name, record in source.files.items():
        digest = hashlib.sha256()
        target = folder / name
        make_folder(target.parent)
        with (source.folder / name).open("rb", buffering=0) as file, target.open("wb") as copy:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                copy.write(chunk)
        if digest.hexdigest() != record["sha256"]:
            raise UsageError(
                f"{source.folder / name}: is damaged; remove {source.folder}, it is made anew"
            )
    return source.metadata
