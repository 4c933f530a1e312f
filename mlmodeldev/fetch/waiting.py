"""Waiting for another process's download: a line now and then, its error as ours, a deadline.

Example::

    waiting = Waiting(source, side, deadline=None)
    waiting(waited=12.0)         # between two looks; raises when the other has failed
    waiting.tell_failure(error)  # for those who wait for us

On nodes without internet each of a hundred tasks would else try for minutes, one after the other.
The note ``.fetch/NAME.failed`` is written only while somebody waits (``.fetch/NAME.waiting``), and
counts for those who waited before it was written; the next success removes both.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from mlmodeldev.fetch.files import human, write_whole
from mlmodeldev.fetch.progress import LINE_SECONDS
from mlmodeldev.fetch.source import FetchError, Source

_ANNOUNCE_SECONDS = 0.3

_logger = logging.getLogger(__name__)


class Waiting:
    """What one process does while another one downloads the same file.

    Args:
        side: The folder of locks and markers.
        deadline: Of ``time.monotonic``, after which waiting is given up; ``None``: never.
    """

    def __init__(self, source: Source, side: Path, deadline: float | None) -> None:
        self._source, self._side, self._deadline = source, side, deadline
        self._note = side / f"{source.name}.failed"
        self._sign = side / f"{source.name}.waiting"
        self._old_note = self._note_version()
        self._told = 0.0

    def __call__(self, waited: float) -> None:
        """Raise ``FetchError`` on the other's failure or the deadline; else tell how far it is."""
        self.check_failure()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise FetchError(f"{self._source.name}: another process did not fetch it in time")
        if waited > _ANNOUNCE_SECONDS and not self._sign.exists():
            with suppress(OSError):
                self._sign.touch()
        if waited - self._told >= LINE_SECONDS:
            self._told = waited
            self._tell()

    def check_failure(self) -> None:
        """Raise the other's error, if it has failed since we started."""
        version = self._note_version()
        if version is not None and version != self._old_note:
            with suppress(FileNotFoundError):
                text = self._note.read_text("utf-8")
                raise FetchError(f"{text} (told by the process that tried)")

    def tell_failure(self, error: FetchError) -> None:
        """Leave the error for those who wait, if anybody does."""
        with suppress(OSError):
            if self._sign.exists():
                self._sign.unlink(missing_ok=True)
                write_whole(self._note, str(error).encode())

    def clear(self) -> None:
        """Remove the notes after a success."""
        for path in (self._note, self._sign):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _note_version(self) -> tuple[int, int] | None:
        try:
            status = self._note.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _tell(self) -> None:
        from mlmodeldev.fetch.partial import staged_bytes

        have = human(staged_bytes(self._side, self._source.name))
        _logger.info("%s: another process fetches it (%s so far)", self._source.name, have)
