"""Requests that end: within a time, within a size, whatever the other side sends.

A time-out of ``requests`` counts from byte to byte: an answer of a byte a second never runs into
it. So the exchange is made by a thread of its own, which is left behind when its time is up.

Example::

    status, body = post_json("https://example.org/graphql", {"query": "..."}, ("api", key), 20)
    future = in_background(slow_call)       # never keeps the process from ending
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillWaiting
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from mlmodeldev.trial import signals

MOST_BYTES = 16 * 2**20
"""Longest answer that is read; that of a sweep has some kilobytes."""
MOST_LEFT_BEHIND = 8
"""Requests whose time was up and whose answer still trickles in; with so many no other is made."""
_PIECE = 1024
_REDIRECTS = 3
_left_behind: list[Future[Any]] = []
T = TypeVar("T")


class Unreachable(Exception):
    """The server did not answer, or not in a way that can be read; it may do so later."""


def in_background(call: Callable[[], T]) -> Future[T]:
    """Make a call in a thread that ends with the process, whether it has returned or not."""
    future: Future[T] = Future()

    def work() -> None:
        # a signal that woke this thread would leave the main one waiting, which has the handlers
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=work, daemon=True, name="request").start()
    return future


def post_json(url: str, content: Any, auth: tuple[str, str], seconds: float) -> tuple[int, bytes]:
    """Send JSON; return the answer's status and body.

    Redirects that keep a request as it is (307, 308) are followed on the same host only: the key
    is for no other.

    Args:
        url: where to.
        content: what is sent.
        auth: user and password.
        seconds: from the call to the last byte of the answer.

    Raises:
        Unreachable: no answer, none that is whole in time, too long a one, or one that is no HTTP.
    """
    _left_behind[:] = [future for future in _left_behind if not future.done()]
    if len(_left_behind) >= MOST_LEFT_BEHIND:
        raise Unreachable(f"the last {MOST_LEFT_BEHIND} answers have not ended")
    end = time.monotonic() + seconds
    future = in_background(lambda: _exchange(url, content, auth, end))
    try:
        return future.result(seconds)
    except StillWaiting:
        _left_behind.append(future)
        raise Unreachable(f"no whole answer within {seconds:.0f} s") from None
    except Unreachable:
        raise
    except Exception as error:  # what a broken answer raises in the libraries has no common class
        raise Unreachable(type(error).__name__) from None


def _exchange(url: str, content: Any, auth: tuple[str, str], end: float) -> tuple[int, bytes]:
    import requests

    for _ in range(_REDIRECTS):
        left = max(0.1, end - time.monotonic())
        with requests.post(
            url, json=content, auth=auth, timeout=left, stream=True, allow_redirects=False
        ) as answer:
            target = urljoin(url, answer.headers.get("Location") or "")
            same = urlsplit(target).hostname == urlsplit(url).hostname
            if answer.status_code not in (307, 308) or not same:
                return answer.status_code, _body(answer, end)
            url = target
    raise Unreachable("redirects in a circle")


def _body(answer: Any, end: float) -> bytes:
    body = bytearray()
    for piece in answer.iter_content(_PIECE):
        body += piece
        if len(body) > MOST_BYTES:
            raise Unreachable(f"an answer of more than {MOST_BYTES // 2**20} MiB")
        if time.monotonic() > end:
            raise Unreachable("the answer does not end")
    return bytes(body)
