"""How far a download is: a bar in a terminal, a line every few seconds in a log.

Example::

    with Progress("train2017.zip", total=19336861798) as progress:
        progress.set(received)
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from mlmodeldev.fetch.files import human

LINE_SECONDS = 5.0
"""Time between two lines of a log."""

Report = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes in all (``None``: not known)."""

_logger = logging.getLogger(__name__)


def log_progress() -> None:
    """Let what this package tells through ``logging`` reach standard error, unless it does.

    A trial that waits for 20 GB must not look as if it hung.
    """
    package = logging.getLogger("mlmodeldev.data")
    if not package.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
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
