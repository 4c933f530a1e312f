"""How far a download is: ours, by a bar or by lines in a log, or another process's, by lines.

Example::

    with DownloadProgress("train2017.zip", total=19336861798) as progress:
        progress.set(received)
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mlmodeldev.atomic import write_shared
from mlmodeldev.fetch.files import human
from mlmodeldev.fetch.source import FetchError, Source

LINE_SECONDS = 5.0
"""Time between two lines of a log."""

Report = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes in all (``None``: not known)."""

_ANNOUNCE_SECONDS = 0.3
_PACKAGES = ("mlmodeldev.data", "mlmodeldev.fetch")

_logger = logging.getLogger(__name__)


def log_progress() -> None:
    """Let what `data` and `fetch` tell through ``logging`` reach standard error, unless it does.

    A trial that waits for 20 GB must not look as if it hung.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in _PACKAGES:
        package = logging.getLogger(name)
        if not package.hasHandlers():
            package.addHandler(handler)
            package.setLevel(logging.INFO)


class DownloadProgress:
    """A bar on a terminal, else lines through ``logging``; or a function of the caller.

    Args:
        name: What is shown.
        total: Size in bytes, if known.
        show: ``None``: a bar if standard error is a terminal, else lines; ``False``: nothing;
            ``True``: a bar; a function: called with ``(bytes, total)``.
    """

    def __init__(self, name: str, total: int | None, show: bool | Report | None = None) -> None:
        self._name, self._total = name, total
        self._report = show if callable(show) else None
        self._silent = show is False
        self._bar = self._make_bar() if self._wants_bar(show) else None
        self._start = self._last_line = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> DownloadProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def expect(self, total: int | None) -> None:
        """Note the size when the server has told it."""
        self._total = total if self._total is None else self._total
        if self._bar is not None:
            self._bar.total = self._total

    def set(self, received: int) -> None:
        """Show that ``received`` bytes are there."""
        if self._report is not None:
            self._report(received, self._total)
        elif self._bar is not None:
            self._bar.update(received - self._bar.n)
        elif not self._silent:
            self._line(received)

    def _line(self, received: int) -> None:
        self._first = received if self._first is None else self._first
        now = time.monotonic()
        if now - self._last_line < LINE_SECONDS:
            return
        self._last_line = now
        rate = (received - self._first) / (now - self._start)
        _logger.info("%s: %s, %s/s", self._name, self._done(received), human(max(rate, 0)))

    def _done(self, received: int) -> str:
        if not self._total:
            return human(received)
        return f"{human(received)} of {human(self._total)} ({received / self._total:.0%})"

    @staticmethod
    def _wants_bar(show: bool | Report | None) -> bool:
        return show is True or (show is None and sys.stderr.isatty())

    def _make_bar(self) -> Any:
        from tqdm import tqdm

        return tqdm(
            desc=self._name, total=self._total, unit="B", unit_scale=True, dynamic_ncols=True
        )


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
        self._last_line = 0.0

    def __call__(self, waited: float) -> None:
        """Raise ``FetchError`` on the other's failure or the deadline; else log how far it is."""
        self.check_failure()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise FetchError(f"{self._source.name}: another process did not fetch it in time")
        if waited > _ANNOUNCE_SECONDS and not self._sign.exists():
            with suppress(OSError):
                self._sign.touch()
        if waited - self._last_line >= LINE_SECONDS:
            self._last_line = waited
            self._log_line()

    def check_failure(self) -> None:
        """Raise the other's error, if it has failed since we started."""
        version = self._note_version()
        if version is not None and version != self._old_note:
            with suppress(FileNotFoundError):
                text = self._note.read_text("utf-8")
                raise FetchError(f"{text} (told by the process that tried)")

    def leave_failure(self, error: FetchError) -> None:
        """Leave the error for those who wait, if anybody does."""
        with suppress(OSError):
            if self._sign.exists():
                self._sign.unlink(missing_ok=True)
                write_shared(self._note, str(error).encode())

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

    def _log_line(self) -> None:
        from mlmodeldev.fetch.partial import staged_bytes

        have = human(staged_bytes(self._side, self._source.name))
        _logger.info("%s: another process fetches it (%s so far)", self._source.name, have)
