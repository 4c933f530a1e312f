"""``fetch``: a file that is there, whole and verified, or one clear error.

Example::

    path = fetch(Source(urls=["https://host/a.zip"], bytes=376971, sha256="f212…"), "data/cola")

A hundred array tasks may call it at once for the same file, on many nodes: one of them downloads,
the others wait and use the result. Killed, it goes on at the byte where it was. A second call reads
two small files and answers at once. Sources of behaviour: RFC 9110 for HTTP, see ``transport``;
the faults to survive come from pySmartDL issues 14, 24, 32 and 49.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.atomic import make_folder
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch import verify
from mlmodeldev.fetch.files import SIDE, free_bytes, human, remove_if_empty
from mlmodeldev.fetch.progress import DownloadProgress, Report, Waiting
from mlmodeldev.fetch.source import FetchError, NoSpace, Source

if TYPE_CHECKING:
    from mlmodeldev.fetch.lock import Claim

OFFLINE_VARIABLES = ("MLMODELDEV_OFFLINE", "HF_HUB_OFFLINE")
_SLACK_BYTES = 16_000_000

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Options:
    progress: bool | Report | None
    timeout: float
    retries: int
    backoff: float
    parts: int
    deadline: float | None


def fetch(
    source: Source,
    directory: str | os.PathLike[str],
    *,
    offline: bool | None = None,
    progress: bool | Report | None = None,
    timeout: float = 30.0,
    retries: int = 5,
    backoff: float = 1.0,
    parts: int = 4,
    deadline: float | None = None,
    touch: bool = False,
) -> Path:
    """Return the path of the file of ``source`` in ``directory``, downloading it if need be.

    Args:
        directory: Made if missing. The file lies in it under ``source.name``; ``.fetch`` beside it
            holds the marker of what was verified and, meanwhile, lock and unfinished bytes.
        offline: Don't use the network: verify and use what is there. ``None``: what
            ``MLMODELDEV_OFFLINE`` or ``HF_HUB_OFFLINE`` says. ``file://`` addresses still work.
        progress: ``None``: a bar in a terminal, else a line every few seconds; ``False``:
            nothing; or a function ``(bytes, total)``.
        timeout: Seconds without a byte after which a connection is given up.
        retries: Rounds over all addresses after the first one; a round with progress is free.
            0: one round, whatever it brings.
        backoff: Seconds before the second round; doubles up to 30 s.
        parts: Connections for a large file of known size and digest when one is slow.
        deadline: Seconds for everything, waiting for another process included; ``None``: no limit.
        touch: Renew the file's times, for scratch file systems that purge by age.

    Raises:
        FetchError: The file can't be had (a ``UsageError``: one line); no bad file is in place.
        UsageError: An argument that can't be right.
    """
    target = Path(directory).expanduser().absolute() / source.name
    _check_numbers(timeout=timeout, retries=retries, backoff=backoff, parts=parts)
    if not verify.is_verified(target, source):
        end = None if deadline is None else time.monotonic() + deadline
        options = _Options(progress, timeout, retries, backoff, parts, end)
        _make_ready(_reachable(source, offline), target, options, _is_offline(offline))
    if touch:
        verify.renew_times(target)
    return target


def _check_numbers(*, timeout: float, retries: int, backoff: float, parts: int) -> None:
    least = {"timeout": (timeout, 0.001), "retries": (retries, 0)}
    least |= {"backoff": (backoff, 0), "parts": (parts, 1)}
    for name, (value, smallest) in least.items():
        if not value >= smallest:
            raise UsageError(f"fetch: {name}={value!r} is not allowed: at least {smallest}")


def _is_offline(offline: bool | None) -> bool:
    if offline is not None:
        return offline
    values = (os.environ.get(name, "") for name in OFFLINE_VARIABLES)
    return any(value.strip().lower() in {"1", "true", "yes", "on"} for value in values)


def _reachable(source: Source, offline: bool | None) -> Source:
    """Keep the local addresses only, when offline; all of them if there is none."""
    local = [url for url in source.urls if url.startswith("file:")]
    if _is_offline(offline) and local:
        return dataclasses.replace(source, urls=local)
    return source


def _make_ready(source: Source, target: Path, options: _Options, offline: bool) -> None:
    if target.is_dir():
        raise UsageError(f"{target} is a folder: choose another directory or Source.name")
    sealed = offline and not source.urls[0].startswith("file:")
    if sealed and not target.is_file():
        raise FetchError(_placing_advice(source, target))
    side = target.parent / SIDE
    if not _writable_side(side):
        _use_read_only(source, target, sealed)
        return
    try:
        _work_or_wait(source, target, options, sealed)
    finally:
        remove_if_empty(side)


def _writable_side(side: Path) -> bool:
    try:
        make_folder(side)
    except OSError:
        return False
    return os.access(side, os.W_OK | os.X_OK)


def _use_read_only(source: Source, target: Path, sealed: bool) -> None:
    """Check a file of a shared cache that we may read but not write."""
    if not target.is_file():
        raise FetchError(f"{source.name}: {target.parent} can't be written")
    _accept(source, target, sealed)


def _work_or_wait(source: Source, target: Path, options: _Options, sealed: bool) -> None:
    from mlmodeldev.fetch.lock import ClaimLost, one_worker

    side = target.parent / SIDE
    waiting = Waiting(source, side, options.deadline)

    def ready() -> bool:
        return verify.is_verified(target, source)

    while not ready():
        with one_worker(side / f"{source.name}.lock", ready, waiting) as claim:
            if claim is None or _is_good(source, target, sealed):
                return
            waiting.check_failure()
            try:
                _download(source, target, options, claim)
                waiting.clear()
            except FetchError as error:
                waiting.leave_failure(error)
                raise
            except (ClaimLost, FileNotFoundError):
                _logger.warning("%s: taken over by another process; waiting for it", source.name)


def _is_good(source: Source, target: Path, sealed: bool) -> bool:
    """Check a file that is there without a marker: placed by hand, copied or changed."""
    if not target.is_file():
        return False
    try:
        _accept(source, target, sealed)
    except FetchError as error:
        if sealed:
            raise
        _logger.warning("%s; it is fetched again", error)
        return False
    return True


def _accept(source: Source, target: Path, sealed: bool) -> None:
    if source.bytes is None or target.stat().st_size == source.bytes:
        _logger.info("%s: verifying the file that is there", source.name)
    try:
        verify.mark_verified(target, verify.check_file(target, source))
    except FetchError as error:
        advice = f". {_placing_advice(source, target)}" if sealed else ""
        raise FetchError(f"{target} is not the right file: {error}{advice}") from None


def _download(source: Source, target: Path, options: _Options, claim: Claim) -> None:
    from mlmodeldev.fetch.attempts import DownloadJob, run
    from mlmodeldev.fetch.partial import Staging, remove_abandoned

    side = target.parent / SIDE
    staging = Staging.open(side, source, claim.token)
    keep = True  # whatever interrupts us, the next start goes on from here
    try:
        _check_disk(source, side, staging.size + sum(part.size for part in staging.segments))
        with DownloadProgress(source.name, source.bytes, options.progress) as progress:
            numbers = (options.timeout, options.retries, options.backoff, options.parts)
            digests = run(DownloadJob(source, staging, progress, *numbers, options.deadline))
        claim.check()
        staging.publish(target)
        verify.mark_verified(target, digests)
        keep = False
    except FetchError as error:
        keep = staging.worth_keeping and not isinstance(error, NoSpace)
        raise
    finally:
        staging.close(keep)
    remove_abandoned(side, source.name)


def _check_disk(source: Source, side: Path, have: int) -> None:
    """Raise ``NoSpace`` before the first byte rather than after the last that fits."""
    free = free_bytes(side)
    if source.bytes is not None and source.bytes - have + _SLACK_BYTES > free:
        raise NoSpace(
            f"{source.name} needs {human(source.bytes - have)} in {side.parent}, where "
            f"{human(free)} are free; free some or choose another directory"
        )


def _placing_advice(source: Source, target: Path) -> str:
    """Say what a user of a machine without internet has to put where."""
    size = "" if source.bytes is None else f", {source.bytes} bytes"
    digest = ", {} {}".format(*source.digest) if source.digest else ""
    return (
        f"Offline: place {source.name} ({source.shown_urls[0]}{size}{digest}) at {target}, or "
        "fetch it on a node with internet"
    )
