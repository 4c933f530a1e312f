"""Several ranges at once by pySmartDL, inside something trustworthy.

Example::

    whole = download_parts(url, staging.folder, size=19336861798, parts=4, timeout=30, ...)

pySmartDL 1.3.4 is quick, but it takes truncated files for good, fails for ever after one reset
(the old futures stay in its pool), tries no mirror after the first request and can't resume. So it
runs only where size and digest are known, once, without its own retries; the caller checks the
result; and what its parts brought before a failure is kept: ``segments`` finds it, also after
``kill -9``, and the single stream fills the gaps.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlmodeldev.atomic import write_shared
from mlmodeldev.fetch.transport import AGENT, Transient

if TYPE_CHECKING:
    from pySmartDL import SmartDL

_NAME = "parts"
_MIN_PART = 2 << 20
_POLL_SECONDS = 0.05


class Segment(NamedTuple):
    """Bytes of one range that are on the disk: from ``start`` on, ``size`` of them."""

    start: int
    size: int
    path: Path


def download_parts(
    url: str,
    folder: Path,
    *,
    size: int,
    parts: int,
    timeout: float,
    tick: Callable[[int], None],
) -> Path:
    """Download ``url`` into ``folder`` by ``parts`` connections and return the joined file.

    Args:
        size: Exact size in bytes.
        timeout: Seconds without a byte after which it is given up.
        tick: Called some times a second with the bytes so far; may raise to stop.

    Raises:
        Transient: It failed; ``segments(folder, size)`` tells what is there.
    """
    write_shared(folder / f"{_NAME}.count", str(parts).encode())
    with _quiet_threads():
        job = _start(url, folder / _NAME, parts, timeout)
        try:
            _watch(job, timeout, tick)
        finally:
            _stop(job, timeout)
    joined = folder / _NAME
    if not joined.is_file() or joined.stat().st_size != size:
        joined.unlink(missing_ok=True)
        raise Transient("the parallel download broke off")
    return joined


def segments(folder: Path, size: int | None) -> list[Segment]:
    """Return what the parts of an earlier ``download_parts`` hold, in order."""
    try:
        count = int((folder / f"{_NAME}.count").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    present = []
    for index, (start, length) in enumerate(_ranges(size or 0, count)):
        path = folder / f"{_NAME}.{index:03d}"
        have = path.stat().st_size if path.is_file() else 0
        if 0 < have <= length:  # more than was asked for: the server has ignored the range
            present.append(Segment(start, have, path))
    return present


def _ranges(size: int, count: int) -> list[tuple[int, int]]:
    """The (start, length) of the ranges that pySmartDL asks for."""
    if size <= 0 or count <= 0:
        return []
    from pySmartDL import utils

    pairs = utils.calc_chunk_size(size, count, _MIN_PART)
    return [(first, last - first + 1) for first, last in pairs]


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Keep the tracebacks of pySmartDL's threads out of the log; others go the usual way."""
    usual = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        frames = traceback.extract_tb(failure.exc_traceback)
        if not any("pySmartDL" in frame.filename for frame in frames):
            usual(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual


def _start(url: str, target: Path, parts: int, timeout: float) -> SmartDL:
    """Start a new object (its own retry never works) without its bar and its random agent."""
    from pySmartDL import SmartDL

    try:
        job = SmartDL(
            [url],
            str(target),
            progress_bar=False,
            fix_urls=False,
            threads=parts,
            timeout=math.ceil(timeout),
            request_args={"headers": {"User-Agent": AGENT, "Accept-Encoding": "identity"}},
        )
        job.attemps_limit = 1
        job.start(blocking=False)
    except Exception as error:  # whatever it is, the single stream goes on
        raise Transient(f"the parallel download did not start ({type(error).__name__})") from None
    return job


def _watch(job: SmartDL, timeout: float, tick: Callable[[int], None]) -> None:
    last_bytes, last_change = -1, time.monotonic()
    finisher: threading.Thread = job.post_threadpool_thread
    while finisher.is_alive():
        received = int(job.shared_var.value)
        if received != last_bytes:
            last_bytes, last_change = received, time.monotonic()
        elif time.monotonic() - last_change > timeout and not job.pool.done():
            raise Transient("timed out")
        tick(received)
        finisher.join(_POLL_SECONDS)


def _stop(job: SmartDL, timeout: float) -> None:
    """Stop the threads and wait: after this nobody writes to the parts."""
    job.stop()
    job.thread_shared_cmds["stop"] = ""
    job.post_threadpool_thread.join(timeout + 1)
    job.pool.shutdown(wait=False)
