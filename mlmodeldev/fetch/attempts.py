"""From addresses to the right bytes: tries, retries, mirrors, and the check at the end.

Example::

    run(DownloadJob(source, staging, progress, timeout=30, retries=5, backoff=1, parts=4, …))

Every kind of failure moves on to the next address. An address that says no (404, another size, a
wrong digest) is not asked again; one that stumbles (reset, timeout, 5xx, 429) is asked again in the
next round, after a pause that doubles, or after what its Retry-After says. A round that brought new
bytes doesn't count: a line that breaks every gigabyte still brings twenty of them.
"""

from __future__ import annotations

import gzip
import logging
import random
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlmodeldev.fetch.files import free_bytes, human
from mlmodeldev.fetch.parallel import download_parts
from mlmodeldev.fetch.partial import Staging
from mlmodeldev.fetch.progress import DownloadProgress
from mlmodeldev.fetch.source import FetchError, Source, redact
from mlmodeldev.fetch.transport import RangeLost, Refused, Stream, Transient, open_stream
from mlmodeldev.fetch.verify import algorithms_for, check_digests, check_size, hash_file

PARALLEL_BYTES = 32_000_000
"""Smaller files are never split."""

_TRIAL_SECONDS = 0.25
_FAST_ENOUGH = 100e6  # bytes a second: beyond it, joining the parts costs more than they save
_WORTH_SECONDS = 2.0
_LONGEST_PAUSE = 30.0
_LONGEST_RETRY_AFTER = 600.0
_SLOWEST = 1024.0  # bytes a second over one timeout: below it a connection counts as stalled

_logger = logging.getLogger(__name__)


@dataclass
class DownloadJob:
    """One file on its way; see ``fetch`` for what the numbers mean."""

    source: Source
    staging: Staging
    progress: DownloadProgress
    timeout: float
    retries: int
    backoff: float
    parts: int
    deadline: float | None
    may_split: bool = True
    was_split: bool = False

    def check_time(self) -> None:
        """Raise ``FetchError`` when the deadline (of ``time.monotonic``) has passed."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise FetchError(
                f"{self.source.name}: not there within the deadline; "
                f"{human(self.staging.size)} have arrived"
            )


@dataclass
class _Address:
    url: str
    not_before: float = 0.0
    problem: str = ""
    dead: bool = False


class _WorthSplitting(Exception):
    """The single stream is slow enough for several to pay."""


class _WrongContent(Exception):
    """All bytes are there, and they are not the right ones."""


def run(job: DownloadJob) -> dict[str, str]:
    """Bring the staged file to its end and return its digests.

    Raises:
        FetchError: No address gave the right bytes, the deadline passed, or the disk is full.
    """
    addresses = [_Address(url) for url in job.source.urls]
    failures, furthest = 0, job.staging.size
    while failures <= job.retries:
        for address in _usable(addresses):
            digests = _try(job, address)
            if digests is not None:
                return digests
        if all(address.dead for address in addresses):
            break
        advanced = job.staging.size > furthest + _progress_worth(job.source)
        furthest = max(furthest, job.staging.size)
        failures = 0 if advanced and job.retries else failures + 1
        if failures <= job.retries:
            _pause(job, addresses, failures)
    raise FetchError(_summary(job, addresses))


def _progress_worth(source: Source) -> int:
    return max(1 << 20, (source.bytes or 0) // 100)


def _usable(addresses: list[_Address]) -> list[_Address]:
    now = time.monotonic()
    return [address for address in addresses if not address.dead and address.not_before <= now]


def _pause(job: DownloadJob, addresses: list[_Address], failures: int) -> None:
    """Wait before the next round: doubling, with jitter, and as long as every server asks."""
    retry_after = min(address.not_before for address in addresses if not address.dead)
    backoff = min(job.backoff * 2 ** max(failures - 1, 0), _LONGEST_PAUSE)
    # Array tasks that fail together must not come back together.
    seconds = max(backoff * random.uniform(0.5, 1.0), retry_after - time.monotonic())
    if job.deadline is not None:
        seconds = min(seconds, max(job.deadline - time.monotonic(), 0.0))
    time.sleep(seconds)
    job.check_time()


def _try(job: DownloadJob, address: _Address) -> dict[str, str] | None:
    """Ask one address; return the digests, or note what is wrong with it."""
    fresh, job.was_split = job.staging.size == 0 and not job.staging.segments, False
    try:
        _complete(job, address.url)
        return _checked(job)
    except Transient as error:
        address.problem = str(error)
        if error.retry_after is not None:
            address.not_before = time.monotonic() + error.retry_after
            address.dead = error.retry_after > _LONGEST_RETRY_AFTER
    except Refused as error:
        address.problem, address.dead = str(error), True
    except _WrongContent as error:
        # Bytes of several connections may not belong together: only an address that sent them
        # all in one go has shown that it is wrong. Any other is asked for all of them at once,
        # before one that sends too few can put its own in front again.
        address.problem, address.dead = str(error), fresh and not job.was_split
        job.staging.restart()
        if not address.dead:
            return _try(job, address)
    _logger.warning("%s: %s: %s", job.source.name, redact(address.url), address.problem)
    return None


def _complete(job: DownloadJob, url: str) -> None:
    """Bring every byte from one address, however many requests that takes."""
    complete, trial = False, _may_split(job, url)
    while not complete:
        try:
            complete = _stream(job, url, trial)
        except _WorthSplitting:
            _split(job, url)
        except RangeLost:
            if not job.staging.size:
                raise
            job.staging.restart()
        trial = False


def _stream(job: DownloadJob, url: str, trial: bool) -> bool:
    """Ask for what is missing up to the next part that is there; say whether it is the end."""
    staging = job.staging
    stop = staging.absorb()
    if staging.size and not _may_resume(job, url):
        staging.restart()
        stop = None
    if staging.size == job.source.bytes and not staging.encoded:
        return True
    with open_stream(
        url,
        offset=staging.size,
        stop=stop,
        validator=staging.validator if staging.is_from(url) else "",
        headers=job.source.request_headers(url),
        timeout=job.timeout,
    ) as stream:
        if stream.offset != staging.size:
            staging.restart()
            stop = None
        end = stop or _end(job.source, stream)
        if staging.size == 0:
            staging.note(url, stream.validator, stream.encoded)
        job.progress.expect(end if stop is None else None)
        _copy(job, stream, end, trial and stream.ranges)
    return stop is None


def _may_resume(job: DownloadJob, url: str) -> bool:
    """Bytes of another address or version do no harm only where a digest finds them out."""
    same_version = job.staging.is_from(url) and bool(job.staging.validator)
    return same_version or (job.source.digest is not None and not job.staging.encoded)


def _end(source: Source, stream: Stream) -> int | None:
    """Return the size that the staged file must have, if anybody knows."""
    if stream.encoded or source.bytes is None:
        return stream.total
    if stream.total is not None and stream.total != source.bytes:
        raise Refused(f"it has {stream.total} bytes there instead of {source.bytes}")
    return source.bytes


def _copy(job: DownloadJob, stream: Stream, end: int | None, trial: bool) -> None:
    """Append the stream to the staged file.

    Raises:
        Transient: It ended early or was too slow.
        Refused: It has more bytes than it may have.
    """
    staging, start = job.staging, time.monotonic()
    window_start, window_bytes = start, staging.size
    for chunk in stream.chunks:
        if end is not None and staging.size + len(chunk) > end:
            raise Refused(f"it has more than {end} bytes there")
        staging.write(chunk)
        job.progress.set(staging.size)
        job.check_time()
        now = time.monotonic()
        if trial:
            _consider_splitting(job, now - start)
        if now - window_start > job.timeout:
            if staging.size - window_bytes < _SLOWEST * job.timeout:
                raise Transient("stalled")
            window_start, window_bytes = now, staging.size
    if end is not None and staging.size < end:
        raise Transient("the body ended early")


def _may_split(job: DownloadJob, url: str) -> bool:
    """Parts need a digest to be trusted; pySmartDL sends no credentials with its first requests."""
    from requests.utils import get_netrc_auth

    source, address = job.source, urlsplit(url)
    wanted = job.may_split and job.parts > 1 and source.digest is not None
    large = source.bytes is not None and source.bytes >= PARALLEL_BYTES
    fresh = job.staging.size == 0 and not job.staging.segments
    open_to_all = not source.headers and "@" not in address.netloc
    if not (wanted and large and fresh and open_to_all and address.scheme != "file"):
        return False
    return get_netrc_auth(url) is None and _room_for_parts(job)


def _room_for_parts(job: DownloadJob) -> bool:
    """Joining the parts needs room for one of them beside the whole file."""
    size = job.source.bytes or 0
    return free_bytes(job.staging.folder) > size + 2 * size // job.parts


def _consider_splitting(job: DownloadJob, elapsed: float) -> None:
    """Leave a single stream that is slow, early enough that little is asked for twice."""
    if not _TRIAL_SECONDS <= elapsed <= 10 * _TRIAL_SECONDS:
        return
    rate = job.staging.size / elapsed
    left = ((job.source.bytes or 0) - job.staging.size) / max(rate, 1.0)
    if rate < _FAST_ENOUGH and left > max(_WORTH_SECONDS, 4 * elapsed):
        raise _WorthSplitting


def _split(job: DownloadJob, url: str) -> None:
    """Download by several connections; what they brought before a failure stays."""
    staging, size = job.staging, job.source.bytes or 0
    job.may_split, job.was_split = False, True

    def show(received: int) -> None:
        job.progress.set(received)
        job.check_time()

    try:
        joined = download_parts(
            url, staging.folder, size=size, parts=job.parts, timeout=job.timeout, tick=show
        )
    except Transient as error:
        _logger.info("%s: %s; going on with one connection", job.source.name, error)
        staging.reload_segments()
    else:
        staging.replace_data(joined)


def _checked(job: DownloadJob) -> dict[str, str]:
    """Return the digests of the staged file after comparing size and digest.

    Raises:
        _WrongContent: They are not those of the source.
    """
    source, staging = job.source, job.staging
    digests = staging.digests()
    try:
        if (
            staging.encoded
            and not _can_be_checked(source)
            and not source.name.endswith((".gz", ".tgz"))
        ):
            return _decoded(job)
        check_size(staging.data, source)
        check_digests(digests, source)
    except FetchError as error:
        if staging.encoded:
            return _decoded(job)
        raise _WrongContent(str(error)) from None
    return digests


def _can_be_checked(source: Source) -> bool:
    return source.digest is not None or source.bytes is not None


def _decoded(job: DownloadJob) -> dict[str, str]:
    """Undo a gzip coding that the server applied although it was asked not to."""
    source, staging = job.source, job.staging
    plain, limit = staging.folder / "plain", source.bytes
    try:
        with gzip.open(staging.data) as coded, plain.open("wb") as file:
            while chunk := coded.read(1 << 20):
                file.write(chunk)
                if limit is not None and file.tell() > limit:
                    break
        check_size(plain, source)
        digests = hash_file(plain, algorithms_for(source))
        check_digests(digests, source)
    except (FetchError, gzip.BadGzipFile, EOFError) as error:
        plain.unlink(missing_ok=True)
        raise _WrongContent(f"{error} (the server says that it is gzip-coded)") from None
    staging.replace_data(plain)
    return digests


def _summary(job: DownloadJob, addresses: list[_Address]) -> str:
    """Write what failed where, and what the user can do."""
    source = job.source
    problems = "; ".join(f"{redact(address.url)}: {address.problem}" for address in addresses)
    kept = ""
    if job.staging.worth_keeping:
        kept = f" {human(job.staging.size)} are kept: run it again to go on from there."
    return f"{source.name} could not be fetched ({problems}).{kept}"
