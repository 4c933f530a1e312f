"""Tar archives in one pass to their very end, so that damage anywhere is noticed.

Example::

    with open_tar(Path("images.tar.gz")) as (file, stream):
        for entry in file: ...
        stream.check_end(most_bytes)

Python's tarfile takes a damaged header for the end of the archive, and what a compressed stream
says of itself (gzip's CRC-32 and length, xz's and bzip2's sums) stands behind the last member and
is never read. Here the end must be marked, and the stream is read until nothing is left.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from mlmodeldev.errors import UsageError

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_READERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,  # RFC 1952
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x5d\x00\x00\x80": lzma.open,  # the older .lzma
}
_ZSTANDARD = b"\x28\xb5\x2f\xfd"  # RFC 8878, section 3.1.1


class ArchiveError(UsageError):
    """The archive is refused or broken; nothing of it is in place."""


class TarStream:
    """The bytes of a tar, read once from the front; tarfile needs no more of a file.

    Args:
        archive: its name, for messages.
        stream: gives the bytes of the tar.
    """

    def __init__(self, archive: Path, stream: IO[bytes]) -> None:
        self._archive, self._stream = archive, stream
        self._place = 0
        self._last = b""

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end alone."""
        parts = []
        while size and (part := self._stream.read(size)):
            parts.append(part)
            size -= len(part)
        self._last = b"".join(parts)
        self._place += len(self._last)
        return self._last

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._place

    def seek(self, place: int) -> None:
        """Read on to a place."""
        if place < self._place:
            raise tarfile.StreamError("a tar is read from the front to the end")
        while place > self._place and self.read(min(place - self._place, _CHUNK)):
            pass

    def check_end(self, most_bytes: int) -> None:
        """Check that the archive ended where tarfile stopped; read the rest, which is padding.

        POSIX ends an archive by two blocks of zeros. Every writer in use does, also those that
        don't pad to a record (Go, bsdtar to a pipe); one lone block is what GNU tar and we accept.
        No block at all is what a torn copy looks like that was cut between two members: GNU tar
        would take it, but half a dataset is worse than an archive to be fetched again. Data behind
        the end (``cat a.tar b.tar``) would be left out silently by others, and is refused.

        Raises:
            ArchiveError: the end is not marked, or more than padding follows.
        """
        if not self._last:
            raise ArchiveError(f"{self._archive}: broken or cut short (the end is not marked)")
        if self._last.count(0) != _BLOCK:
            raise ArchiveError(f"{self._archive}: broken or cut short (a header is damaged)")
        end = self._place
        while chunk := self.read(_CHUNK):
            if chunk.count(0) != len(chunk):
                raise ArchiveError(
                    f"{self._archive}: broken, or data follow the end of the archive"
                )
            if self._place - end > most_bytes:
                raise ArchiveError(f"{self._archive}: endless padding behind the last member")


@contextmanager
def open_tar(archive: Path) -> Iterator[tuple[tarfile.TarFile, TarStream]]:
    """Open as a stream, of any compression: one pass, nothing kept of a compressed archive.

    Raises:
        ArchiveError: it is no tar, or there is no reader for its compression.
    """
    with archive.open("rb") as file:
        start = file.read(6)
    reader = next((each for magic, each in _READERS.items() if start.startswith(magic)), None)
    packed = reader is not None or start.startswith(_ZSTANDARD)
    with ExitStack() as stack:
        if start.startswith(_ZSTANDARD):
            raw = stack.enter_context(_zstandard(archive))
        else:
            raw = stack.enter_context((reader or open)(archive, "rb"))
        stream = TarStream(archive, raw)
        try:
            readable: Any = stream
            tar = stack.enter_context(tarfile.open(fileobj=readable, mode="r:"))
        except tarfile.ReadError:
            if packed:
                raise ArchiveError(
                    f"{archive}: broken or cut short, or no tar is packed in it"
                ) from None
            raise ArchiveError(
                f"{archive} is not an archive: known are zip, tar, tar.gz, tar.bz2, tar.xz, tar.zst"
            ) from None
        yield tar, stream


def _zstandard(archive: Path) -> Any:
    """Open by the standard library (Python 3.14 on), the package ``zstandard`` or the program."""
    try:
        from compression import zstd

        return zstd.open(archive, "rb")
    except ImportError:
        pass
    try:
        import zstandard

        return zstandard.open(archive, "rb")
    except ImportError:
        pass
    program = shutil.which("zstd")
    if program is None:
        raise ArchiveError(
            f"{archive}: reading zstd needs the program zstd, or a package: python -m pip install"
            " zstandard"
        )
    return _by_program(program, archive)


@contextmanager
def _by_program(program: str, archive: Path) -> Iterator[IO[bytes]]:
    """Read what ``zstd -dc`` writes; a damaged archive is told by its exit status, too."""
    command = [program, "-dcq", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        yield process.stdout
        while process.stdout.read(1 << 20):  # padding after the last member
            pass
        if process.wait():
            raise ArchiveError(f"{archive}: broken or cut short (zstd can't read it)")
