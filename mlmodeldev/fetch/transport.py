"""One request for one file from a given byte on: HTTP(S) through requests, or a local file.

Example::

    with open_stream(url, offset=1048576, validator='"etag"', headers={}, timeout=30) as stream:
        stream.offset            # 1048576 if the server resumes, 0 if it starts again
        for chunk in stream.chunks: ...

What a server answers is read by RFC 9110: 13.1.5 (If-Range takes a strong validator), 14.4
(Content-Range), 15.3.7 (206), 15.5.17 (416), 10.2.3 (Retry-After). Bytes are taken as they are on
the wire: some servers label a ``.gz`` file as content coding, and decoding would change its digest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlmodeldev import __version__
from mlmodeldev.fetch.source import is_private, redact

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 20
AGENT = f"mlmodeldev/{__version__}"
_RETRY = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)


class Transient(Exception):
    """It may work later, or from another address: a reset, a timeout, a busy server.

    ``retry_after`` is what the server asked for, in seconds.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(Exception):
    """This address will not give the file: not found, not allowed, another size."""


@dataclass
class Stream:
    """An open answer.

    Args:
        offset: First byte that ``chunks`` brings: the one asked for, or 0.
        total: Size of the whole file, if the server tells.
        validator: Strong ETag or Last-Modified for a later If-Range, else empty.
        ranges: Whether the server says that it serves ranges.
        encoded: Whether the bytes are said to be gzip-coded.
        chunks: The bytes.
    """

    offset: int
    total: int | None
    validator: str = ""
    ranges: bool = False
    encoded: bool = False
    chunks: Iterator[bytes] = field(default_factory=lambda: iter(()))


@contextmanager
def open_stream(
    url: str,
    *,
    offset: int = 0,
    stop: int | None = None,
    validator: str = "",
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Iterator[Stream]:
    """Ask for the bytes from ``offset`` to before ``stop`` (default: the end).

    Args:
        validator: The bytes before ``offset`` are of this version; another one starts at 0.
        timeout: Seconds without a byte after which the connection is given up.

    Raises:
        Transient: Try again, or another address.
        Refused: Don't ask this address again.
    """
    if urlsplit(url).scheme == "file":
        with _open_local(url, offset, stop) as stream:
            yield stream
        return
    request = {**(headers or {}), "Accept-Encoding": "identity"}
    if offset or stop is not None:
        request["Range"] = f"bytes={offset}-{'' if stop is None else stop - 1}"
        if validator:
            request["If-Range"] = validator
    with _translated(url), _get(url, request, timeout) as response:
        yield _read_answer(response, url, offset, stop)


def _read_answer(response: requests.Response, url: str, offset: int, stop: int | None) -> Stream:
    status = response.status_code
    encoded = "gzip" in response.headers.get("Content-Encoding", "").lower()
    common: dict[str, Any] = {
        "validator": _strong_validator(response.headers),
        "encoded": encoded,
        "chunks": _chunks(response),
    }
    if status == 200:
        ranges = response.headers.get("Accept-Ranges", "").lower() == "bytes"
        return Stream(0, _content_length(response), ranges=ranges, **common)
    if status == 206:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != offset or (stop and int(match[2]) >= stop):
            raise Transient("the server sent another range than the one asked for")
        total = None if match[3] == "*" else int(match[3])
        return Stream(offset, total, ranges=True, **common)
    if status == 416:
        total = _total_of_416(response)
        if total == offset:  # every byte is there already; its digest is still to be checked
            return Stream(offset, total)
        raise RangeLost("HTTP 416: the file has become shorter")
    message = f"HTTP {status} {response.reason}"
    if status in _RETRY:
        raise Transient(message, _retry_after(response))
    raise Refused(message + _advice(status))


class RangeLost(Transient):
    """The server has fewer bytes than we do: what we have is of another version."""


def _advice(status: int) -> str:
    if status in (401, 403):
        return " (set Source.headers or ~/.netrc for this host; they are sent over https alone)"
    return ""


def _strong_validator(headers: Mapping[str, str]) -> str:
    etag = headers.get("ETag", "")
    if etag:
        return "" if etag.startswith("W/") else etag
    return headers.get("Last-Modified", "")


def _content_length(response: requests.Response) -> int | None:
    return _size(response.headers.get("Content-Length", ""))


def _total_of_416(response: requests.Response) -> int | None:
    return _size(response.headers.get("Content-Range", "").rpartition("/")[2])


def _size(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _retry_after(response: requests.Response) -> float | None:
    from urllib3.exceptions import HTTPError
    from urllib3.util import Retry

    value = response.headers.get("Retry-After")
    try:
        return Retry().parse_retry_after(value) if value else None
    except (HTTPError, ValueError):
        return None


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as sent; urllib3 raises where it ends before its Content-Length.

    ``read1`` gives what has arrived: on a slow line ``read`` would hold a whole chunk back.
    """
    while chunk := response.raw.read1(CHUNK, decode_content=False):
        yield chunk


@contextmanager
def _get(url: str, headers: Mapping[str, str], timeout: float) -> Iterator[requests.Response]:
    """A streamed GET. The session is kept: a second request saves the TLS handshake."""
    session = _session(os.getpid())
    auth = None if is_private(url) else no_password
    try:
        response = session.get(url, headers=dict(headers), stream=True, timeout=timeout, auth=auth)
    except ValueError as error:  # what requests raises itself is one as well, and told by its class
        if isinstance(error, OSError):
            raise
        raise Refused("it redirects to what is no address") from None
    with response:
        yield response


@lru_cache(maxsize=1)
def _session(_pid: int) -> requests.Session:
    """One session for a process, and a new one after a fork: sockets can't be shared."""
    import requests

    class Session(requests.Session):
        """Keeps every header of the caller, not only Authorization, from other hosts."""

        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            super().rebuild_auth(prepared_request, response)
            if not is_private(prepared_request.url):  # requests takes .netrc's for the new host
                prepared_request.headers.pop("Authorization", None)
            if self.should_strip_auth(response.request.url, prepared_request.url):
                for name in list(prepared_request.headers):
                    if name.lower() not in _HARMLESS:
                        del prepared_request.headers[name]

    session = Session()
    session.headers["User-Agent"] = AGENT
    return session


def no_password(request: Any) -> Any:
    """Send a request without the password that ``.netrc`` has for its host."""
    return request


_HARMLESS = frozenset(
    {"user-agent", "accept", "accept-encoding", "connection", "range", "if-range"}
)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn the errors of requests and urllib3 into ours, without the address's secrets."""
    import requests
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.TooManyRedirects) as error:
        raise Refused(f"{type(error).__name__} at {redact(url)}") from None
    except requests.exceptions.SSLError:
        raise Refused("the certificate was not accepted") from None
    except (requests.exceptions.Timeout, TimeoutError):
        raise Transient("timed out") from None
    except (requests.exceptions.RequestException, HTTPError) as error:
        raise Transient(_reason(error)) from None
    except ConnectionError as error:
        raise Transient(type(error).__name__) from None


def _reason(error: BaseException) -> str:
    """Say in plain words what broke; messages of the libraries hold the whole address."""
    text = f"{type(error).__name__} {error}"
    for sign, words in (
        ("IncompleteRead", "the body ended early"),
        ("InvalidChunk", "the body ended early"),
        ("reset", "the connection was reset"),
        ("timed out", "timed out"),
        ("refused", "the connection was refused"),
        ("resol", "the host name was not found"),
        ("Remote end closed", "the server closed the connection"),
        ("Proxy", "the proxy failed"),
    ):
        if sign in text:
            return words
    return type(error).__name__


@contextmanager
def _open_local(url: str, offset: int, stop: int | None) -> Iterator[Stream]:
    path = Path(url2pathname(urlsplit(url).path))
    try:
        file = path.open("rb")
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        start = offset if offset <= size else 0
        file.seek(start)
        left = (size if stop is None else stop) - start
        yield Stream(start, size, chunks=_local_chunks(file, left))


def _local_chunks(file: Any, left: int) -> Iterator[bytes]:
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        left -= len(chunk)
        yield chunk
