"""Reading members of zip and tar archives that nobody has to trust.

Example::

    for member in members(Path("train2017.zip"), Limits.for_archive(path)):
        with member.open() as file: ...

Refused, with the member's name: paths that leave the folder (absolute, ``..``, backslashes, drive
letters), links and devices of every kind, two members of one path, encrypted members, and more
bytes or members than the limits. Links are refused even inside the folder: no dataset of ours has
them, and every escape from Python's own tar filter so far went through one. What a member says
about its size is not believed: the bytes that come out are counted.
"""

from __future__ import annotations

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from mlmodeldev.fetch.files import human
from mlmodeldev.fetch.tar_stream import ArchiveError, open_tar

__all__ = ["BROKEN", "ArchiveError", "Limits", "Member", "is_broken", "members", "size_in_index"]

BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    UnicodeDecodeError,
    struct.error,
)
"""What the libraries raise for an archive damaged or cut short; see `is_broken` for the rest."""

_LARGEST_RATIO = 200
_ALWAYS_ALLOWED = 1 << 30
_MOST_MEMBERS = 5_000_000
_EMPTY_ZIP = 22
"""Bytes of a zip without members: its end record (APPNOTE.TXT, 4.3.16)."""


@dataclass(frozen=True)
class Limits:
    """What an archive may grow to.

    Args:
        bytes: All members together, unpacked.
        members: Files and folders.
    """

    bytes: int
    members: int = _MOST_MEMBERS

    @staticmethod
    def for_archive(path: Path) -> Limits:
        """Allow 200 times the size of the archive, and 1 GiB in any case.

        Text packs 3 to 20 times; deflate makes at most 1032 times of a bomb's zeros.
        """
        return Limits(max(_LARGEST_RATIO * path.stat().st_size, _ALWAYS_ALLOWED))


@dataclass(frozen=True)
class Member:
    """One file or folder: a safe relative path, and how to read it (``None``: a folder)."""

    path: PurePosixPath
    open: Callable[[], IO[bytes]] | None
    executable: bool = False


def members(archive: Path, limits: Limits) -> Iterator[Member]:
    """Yield the members in the order of the archive; read each before the next.

    Raises:
        ArchiveError: The archive is of no known kind, or a member is refused.
    """
    reader = _zip_members if is_zip(archive) else _tar_members
    seen: set[PurePosixPath] = set()
    for count, member in enumerate(reader(archive, limits), start=1):
        if count > limits.members:
            raise ArchiveError(f"{archive}: more than {limits.members} members")
        if member.path in seen and member.open is not None:
            raise ArchiveError(f"{archive}: two members are called {member.path}")
        seen.add(member.path)
        yield member


def is_broken(error: OSError) -> bool:
    """Whether bz2 and gzip raised it for damaged bytes, and not the system for want of a file."""
    return error.errno is None


def is_zip(archive: Path) -> bool:
    """Look at the first bytes: ``zipfile.is_zipfile`` also takes a tar that ends with a zip."""
    with archive.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def size_in_index(archive: Path) -> int | None:
    """Return how large a zip's index says its members are; ``None`` for a tar, which has none."""
    if not is_zip(archive):
        return None
    with zipfile.ZipFile(archive) as file:
        return sum(entry.file_size for entry in file.infolist())


def safe_path(archive: Path, name: str) -> PurePosixPath:
    """Return the relative path of a member.

    Raises:
        ArchiveError: It would be written outside of the folder.
    """
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or "\0" in name
        or (path.parts and path.parts[0].endswith(":"))
    ):
        raise ArchiveError(f"{archive}: the member {name!r} would leave the folder")
    if len(path.parts) > _DEEPEST:
        raise ArchiveError(f"{archive}: {len(path.parts)} folders deep: {name[:40]!r}...")
    return path


_DEEPEST = 200
"""Folders in each other that a member may lie in; nothing that walks them has more patience."""


def _zip_members(archive: Path, limits: Limits) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        entries = file.infolist()
        if not entries and archive.stat().st_size > _EMPTY_ZIP:
            raise ArchiveError(f"{archive}: broken (its index is empty, and the file is not)")
        _check_total(archive, sum(entry.file_size for entry in entries), limits)
        for entry in entries:
            mode = entry.external_attr >> 16
            if not entry.filename:
                raise ArchiveError(f"{archive}: a member has no name")
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"{archive}: {entry.filename!r} is a link or a device")
            if entry.flag_bits & 0x1:
                raise ArchiveError(f"{archive}: {entry.filename!r} is encrypted")
            path = safe_path(archive, entry.filename)
            executable = bool(mode & stat.S_IXUSR)
            if entry.is_dir():
                file.open(entry).close()  # its name must stand in the archive a second time
                if entry.file_size:
                    raise ArchiveError(f"{archive}: the folder {entry.filename!r} has content")
                yield Member(path, None)
            else:
                yield Member(path, partial(file.open, entry), executable)


def _tar_members(archive: Path, limits: Limits) -> Iterator[Member]:
    total = 0
    with open_tar(archive) as (file, stream):
        for entry in file:
            if not (entry.isreg() or entry.isdir()):
                raise ArchiveError(f"{archive}: {entry.name!r} is a link or a device")
            total += entry.size
            _check_total(archive, total, limits)
            path = safe_path(archive, entry.name)
            executable = bool(entry.mode & stat.S_IXUSR)
            if entry.isdir():
                yield Member(path, None)
            else:
                yield Member(path, partial(_extract, file, entry), executable)
        stream.check_end(limits.bytes)


def _extract(file: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    stream = file.extractfile(entry)
    if stream is None:
        raise tarfile.ExtractError(entry.name)
    return stream


def _check_total(archive: Path, total: int, limits: Limits) -> None:
    if total > limits.bytes:
        raise ArchiveError(
            f"{archive}: it would unpack to more than {human(limits.bytes)}; if that is right, "
            "raise max_bytes"
        )
