"""The unfinished file: kept beside the target, resumed by whoever comes next, renamed when whole.

Example::

    staging = Staging.open(side, source, token)      # adopts what a killed worker left
    staging.write(chunk)
    staging.digests()                                # of all that was written
    staging.publish(target)

Each worker has a folder of its own, ``.fetch/NAME.TOKEN/`` with ``data`` and ``state.json``, and
renames a dead worker's folder to its own name. A worker that still lives (suspended so long that
its claim expired) holds ``flock`` on its data, which is then left alone: two writers never share
a file. The digest is computed in a second thread while the bytes arrive.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import queue
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mlmodeldev.atomic import publish, remove, share, write_shared
from mlmodeldev.fetch.files import human
from mlmodeldev.fetch.parallel import Segment, segments
from mlmodeldev.fetch.source import NoSpace, Source
from mlmodeldev.fetch.verify import algorithms_for

KEEP_BYTES = 64_000_000
"""After an error, less than this is not worth keeping for the next start."""

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ = 4 << 20
_QUEUED = 8  # chunks between socket and digest: few, so that they are still in the CPU's cache


class Staging:
    """One unfinished file; open at its end."""

    def __init__(self, folder: Path, source: Source, file: BinaryIO) -> None:
        self.folder, self._source, self._file = folder, source, file
        state = _read_state(folder)
        valid = state.get("of") == _fingerprint(source)
        self.url_key = str(state.get("url", "")) if valid else ""
        self.validator = str(state.get("validator", "")) if valid else ""
        self.encoded = bool(state.get("encoded")) if valid else False
        self.segments: list[Segment] = segments(folder, source.bytes) if valid else []
        self.size = file.seek(0, os.SEEK_END)
        self._hash: _HashThread | None = None
        if not valid:
            self.restart()

    @classmethod
    def open(cls, side: Path, source: Source, token: str) -> Staging:
        """Make the folder for ``token``, from a dead worker's if there is one."""
        folder = side / f"{source.name}.{token[:16]}"
        for old in _folders(side, source.name):
            file = _lock_data(old)
            if file is None:
                continue
            with suppress(OSError):
                old.rename(folder)
                return cls(folder, source, file)
            file.close()
        folder.mkdir()
        share(folder)
        file = (folder / "data").open("w+b", buffering=0)
        _try_lock(file)
        return cls(folder, source, file)

    @property
    def data(self) -> Path:
        """The file itself."""
        return self.folder / "data"

    def note(self, url: str, validator: str, encoded: bool) -> None:
        """Remember which version of which address the bytes are; before the first of them."""
        key = hashlib.sha256(url.encode()).hexdigest()  # the address may hold secrets
        if (key, validator, encoded) == (self.url_key, self.validator, self.encoded):
            return
        self.url_key, self.validator, self.encoded = key, validator, encoded
        state = {
            "of": _fingerprint(self._source),
            "url": key,
            "validator": validator,
            "encoded": encoded,
        }
        write_shared(self.folder / "state.json", json.dumps(state).encode())

    def is_from(self, url: str) -> bool:
        """Say whether the bytes so far are of this address."""
        return self.url_key == hashlib.sha256(url.encode()).hexdigest()

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            NoSpace: The disk or the quota is full.
        """
        if self._hash is None:
            self._hash = _HashThread(self.data, self.size, algorithms_for(self._source))
        try:
            view = memoryview(chunk)
            while view:  # an unbuffered file may take less than it is given
                view = view[self._file.write(view) :]
        except OSError as error:
            self._disk_error(error)
        self.size += len(chunk)
        self._hash.update(chunk)

    def absorb(self) -> int | None:
        """Append what parallel parts left behind our end; return where the next part starts."""
        while self.segments:
            first = self.segments[0]
            if first.start > self.size:
                return first.start
            self.segments.pop(0)
            if first.start == self.size:
                with first.path.open("rb") as file:
                    while chunk := file.read(_READ):
                        self.write(chunk)
            first.path.unlink(missing_ok=True)
        return None

    def restart(self) -> None:
        """Throw away every byte."""
        self.segments = []
        for path in self.folder.glob("parts*"):
            remove(path)
        self._stop_hash()
        self._file.seek(0)
        self._file.truncate()
        self.size = 0

    def reload_segments(self) -> None:
        """Look again at what parallel parts left."""
        self.segments = segments(self.folder, self._source.bytes)

    def replace_data(self, path: Path) -> None:
        """Make a finished file of the same folder the data."""
        self._stop_hash()
        self._file.close()
        path.replace(self.data)
        self._file = self.data.open("r+b", buffering=0)
        _try_lock(self._file)
        self.size = self._file.seek(0, os.SEEK_END)

    def digests(self) -> dict[str, str]:
        """Return the digests of all bytes so far."""
        if self._hash is None:
            self._hash = _HashThread(self.data, self.size, algorithms_for(self._source))
        result = self._hash.result()
        self._hash = None
        return result

    def publish(self, target: Path) -> None:
        """Flush the data to the disk and rename them to ``target``.

        Raises:
            FileNotFoundError: Another worker has taken the folder over.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._disk_error(error)
        publish(self.data, target)

    def close(self, keep: bool) -> None:
        """Let go; remove the folder unless ``keep``."""
        self._stop_hash()
        self._file.close()
        if not keep:
            remove(self.folder)

    @property
    def worth_keeping(self) -> bool:
        """Whether there is enough for the next start to resume from."""
        return self.size + sum(part.size for part in self.segments) >= KEEP_BYTES

    def _stop_hash(self) -> None:
        if self._hash is not None:
            self._hash.abandon()
            self._hash = None

    def _disk_error(self, error: OSError) -> None:
        if error.errno not in _DISK_FULL:
            raise error
        missing = "" if self._source.bytes is None else f" of {human(self._source.bytes)}"
        raise NoSpace(
            f"{self._source.name}: no space left in {self.folder.parent.parent} after "
            f"{human(self.size)}{missing} ({error.strerror}); free some or choose another directory"
        ) from None


class _HashThread:
    """Digests in a thread of their own: hashlib lets the interpreter go meanwhile."""

    def __init__(self, path: Path, size: int, algorithms: list[str]) -> None:
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=_QUEUED)
        self._stopped = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, args=(path, size), daemon=True)
        self._thread.start()

    def update(self, chunk: bytes) -> None:
        self._queue.put(chunk)

    def result(self) -> dict[str, str]:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return {name: value.hexdigest() for name, value in self._hashes.items()}

    def abandon(self) -> None:
        self._stopped = True
        self._queue.put(None)
        self._thread.join()

    def _run(self, path: Path, size: int) -> None:
        try:
            self._read_prefix(path, size)
        except OSError as error:
            self._error = error
        while (chunk := self._queue.get()) is not None:
            self._feed(chunk)

    def _read_prefix(self, path: Path, size: int) -> None:
        with path.open("rb") as file:
            while size > 0 and not self._stopped and (chunk := file.read(min(size, _READ))):
                size -= len(chunk)
                self._feed(chunk)

    def _feed(self, chunk: bytes) -> None:
        if not self._stopped:
            for value in self._hashes.values():
                value.update(chunk)


def remove_abandoned(side: Path, name: str) -> None:
    """Remove the folders of dead workers for this file."""
    for folder in _folders(side, name):
        file = _lock_data(folder)
        if file is not None:
            remove(folder)
            file.close()


def staged_bytes(side: Path, name: str) -> int:
    """Return how much of the file is there so far, for those who wait."""
    total = 0
    for folder in _folders(side, name):
        with suppress(OSError):
            total += sum(path.stat().st_size for path in folder.iterdir())
    return total


def _folders(side: Path, name: str) -> list[Path]:
    """Staging folders of one file: its name, a dot and sixteen hexadecimal digits."""
    paths = side.glob(f"{glob.escape(name)}.{'[0-9a-f]' * 16}")
    return [path for path in paths if path.is_dir()]


def _lock_data(folder: Path) -> BinaryIO | None:
    """Open a worker's data if nobody else has it open."""
    try:
        file = (folder / "data").open("a+b", buffering=0)
    except OSError:
        return None
    if _try_lock(file):
        return file
    file.close()
    return None


def _try_lock(file: BinaryIO) -> bool:
    """Lock for this process; a file system without ``flock`` has no living second writer."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _fingerprint(source: Source) -> list[str | int | None]:
    return [source.name, source.bytes, source.sha256, source.md5]


def _read_state(folder: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):
        state = json.loads((folder / "state.json").read_bytes())
        if isinstance(state, dict):
            return state
    return {}
