"""``unpack``: an archive's content, all of it or nothing, under a name that appears at once.

Example::

    folder = unpack("data/coco/val2017.zip", "data/coco/val2017")

The members go to a temporary folder beside the target, which is renamed when the last one is
written: a job that is killed half-way leaves nothing that looks like data. A second call compares
one small file and returns. Files get the time of unpacking, not the archive's: scratch file systems
purge by age, and a picture of 2014 would go first. ``renew`` makes a tree young again later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mlmodeldev.atomic import make_folder, publish, remove, write_shared
from mlmodeldev.fetch.archive import (
    BROKEN,
    ArchiveError,
    Limits,
    is_broken,
    members,
    size_in_index,
)
from mlmodeldev.fetch.files import SIDE, free_bytes, human, remove_if_empty
from mlmodeldev.fetch.verify import recorded_digest
from mlmodeldev.synced import sync_file_system

MARKER = ".unpacked.json"
"""In the unpacked folder: which archive it came from, how many files and bytes."""

_CHUNK = 1 << 20
_SPACE_CHECK_BYTES = 256 << 20
_SLACK_BYTES = 16_000_000


def unpack(
    archive: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    max_bytes: int | None = None,
    flatten: bool = False,
    touch: bool = False,
) -> Path:
    """Unpack a zip or tar (``.gz``, ``.bz2``, ``.xz``, ``.zst``) and return ``directory``.

    Args:
        directory: The folder that will hold the members. It must not exist, or be from an earlier
            ``unpack``: of the same archive it is used as it is, of another one it is replaced.
        max_bytes: Most bytes after unpacking. Default: 200 times the archive, at least 1 GiB.
        flatten: Leave out the one top folder that holds everything else, if there is one.
        touch: Renew the times of an earlier ``unpack``.

    Raises:
        ArchiveError: A broken or dangerous archive, too many bytes, or a full disk
            (a ``UsageError``: one line); ``directory`` is as it was before.
    """
    source, target = Path(archive).absolute(), Path(directory).expanduser().absolute()
    if not source.is_file():
        raise ArchiveError(f"{source}: there is no such archive")
    origin = _origin(source)
    if not is_unpacked(target, origin):
        _check_replaceable(target)
        limits = Limits.for_archive(source) if max_bytes is None else Limits(max_bytes)
        _unpack_once(_Unpacking(source, target, origin, limits, flatten))
    elif touch:
        renew(target)
    return target


def is_unpacked(directory: Path, origin: dict[str, Any]) -> bool:
    """Say whether ``directory`` holds what ``unpack`` made of an archive.

    Args:
        origin: ``sha256`` or, where it is not known, ``bytes`` and ``mtime_ns`` of the archive.
    """
    marker = _read_marker(directory)
    if not marker:
        return False
    if origin.get("sha256") and marker.get("sha256"):
        return bool(origin["sha256"] == marker["sha256"])
    return all(marker.get(key) == origin.get(key) for key in ("bytes", "mtime_ns"))


def unpacked_digest(directory: Path) -> str | None:
    """Return the SHA-256 of the archive that ``unpack`` made ``directory`` of, if it is known."""
    digest = _read_marker(directory).get("sha256")
    return digest if isinstance(digest, str) else None


def renew(directory: Path) -> None:
    """Set the times of every file and folder below ``directory`` to now."""
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                os.utime(os.path.join(parent, name), follow_symlinks=False)  # noqa: PTH118
        with suppress(OSError):
            os.utime(parent)


def _origin(archive: Path) -> dict[str, Any]:
    status = archive.stat()
    return {
        "archive": archive.name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": recorded_digest(archive),
    }


def _read_marker(directory: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        marker = json.loads((directory / MARKER).read_bytes())
        if isinstance(marker, dict):
            return marker
    return {}


def _check_replaceable(target: Path) -> None:
    """A folder that somebody else filled is not ours to replace."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if not _read_marker(target) and any(target.iterdir()):
            raise ArchiveError(f"{target} exists and was not unpacked by us: move it away")
    if target.exists() and not target.is_dir():
        raise ArchiveError(f"{target} is a file: choose another directory")


@dataclass(frozen=True)
class _Unpacking:
    source: Path
    target: Path
    origin: dict[str, Any]
    limits: Limits
    flatten: bool


def _unpack_once(job: _Unpacking) -> None:
    from mlmodeldev.fetch.lock import one_worker

    name = f"{job.target.name}.unpack"
    side = make_folder(job.target.parent / SIDE)

    def ready() -> bool:
        return is_unpacked(job.target, job.origin)

    try:
        with one_worker(side / f"{name}.lock", ready, lambda waited: None) as claim:
            if claim is not None:
                _remove_left_overs(side, name)
                _write_and_swap(job, side / f"{name}.{claim.token[:16]}", claim.check)
    finally:
        remove_if_empty(side)


def _write_and_swap(job: _Unpacking, staged: Path, check_claim: Callable[[], None]) -> None:
    try:
        root = _write_members(job, staged)
        check_claim()
        _swap(root, job.target)
    finally:
        remove(staged)


def _remove_left_overs(side: Path, name: str) -> None:
    """Remove what killed workers left: the claim says that none of them is alive."""
    for path in side.iterdir():
        if path.name.startswith(f"{name}.") and path.is_dir():
            remove(path)


def _write_members(job: _Unpacking, staged: Path) -> Path:
    """Write everything below ``staged`` and return the folder that is to become the target."""
    source = job.source
    make_folder(staged)
    writer = _Writer(source, staged, job.limits)
    try:
        _check_room(source, staged)
        for member in members(source, job.limits):
            path = staged.joinpath(*member.path.parts)
            if member.open is None:
                make_folder(path)
            else:
                make_folder(path.parent)
                with member.open() as file:
                    writer.write(file, path, member.executable)
    except (*BROKEN, NotImplementedError) as error:
        raise ArchiveError(f"{source}: broken or cut short ({error})") from None
    except FileExistsError as error:
        raise ArchiveError(f"{source}: {error.filename} would be written twice") from None
    except OSError as error:
        if is_broken(error):
            raise ArchiveError(f"{source}: broken or cut short ({error})") from None
        raise ArchiveError(f"{source}: {error.strerror} in {staged.parent.parent}") from None
    root = _top_folder(staged) if job.flatten else staged
    content = {**job.origin, "files": writer.files, "unpacked_bytes": writer.total}
    write_shared(root / MARKER, (json.dumps(content, indent=2) + "\n").encode())
    return root


def _check_room(source: Path, staged: Path) -> None:
    needed, free = size_in_index(source), free_bytes(staged)
    if needed is not None and needed + _SLACK_BYTES > free:
        raise ArchiveError(
            f"{source}: unpacking needs {human(needed)} in {staged.parent.parent}, where "
            f"{human(free)} are free"
        )


class _Writer:
    """Writes files and counts: the sizes in an archive may lie."""

    def __init__(self, source: Path, staged: Path, limits: Limits) -> None:
        self._source, self._staged, self._limits = source, staged, limits
        self._mode = staged.stat().st_mode & 0o666 | 0o600  # as ``files.share``, asked for once
        self.files = self.total = 0
        self._next_check = 0

    def write(self, file: IO[bytes], path: Path, executable: bool) -> None:
        with path.open("xb") as out:
            while chunk := file.read(_CHUNK):
                self._count(len(chunk))
                out.write(chunk)
            os.fchmod(out.fileno(), self._mode | ((self._mode & 0o444) >> 2 if executable else 0))
        self.files += 1

    def _count(self, size: int) -> None:
        self.total += size
        if self.total > self._limits.bytes:
            raise ArchiveError(
                f"{self._source}: more than {human(self._limits.bytes)} came out; if that is "
                "right, raise max_bytes"
            )
        if self.total >= self._next_check:
            self._next_check = self.total + _SPACE_CHECK_BYTES
            if free_bytes(self._staged) < _SLACK_BYTES:
                raise ArchiveError(f"{self._source}: the disk of {self._staged.parent} is full")


def _top_folder(staged: Path) -> Path:
    inside = [path for path in staged.iterdir() if path.name != "__MACOSX"]  # Finder's notes
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else staged


def _swap(root: Path, target: Path) -> None:
    """Put the new folder in place of an older one, or of nothing, in one step."""
    sync_file_system(root)
    publish(root, target)
