"""What a trial prints may be lost; the trial is not.

A reader that has gone (``| head``), a terminal that was closed and a log's full disk make each
``print`` fail. The output is dropped then, and comes again where there is room again.

Example::

    open_streams()                       # once, where the process begins
    with output_may_be_lost():
        train()
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EINTR}
"""Errors after which a stream may take output again; after any other its reader is gone."""


def open_streams() -> None:
    """Give standard streams that were closed (``>&-``) a place to write to.

    The next file that is opened would be one of them otherwise, and have all output in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 (for good)


def keep_going_without_output() -> None:
    """Let no write to standard output or error fail any more; once is enough."""
    for stream in (sys.stdout, sys.stderr):
        _wrap(stream)


@contextlib.contextmanager
def output_may_be_lost() -> Iterator[None]:
    """Let no write to standard output or error fail meanwhile."""
    wrapped: list[Any] = [stream for stream in (sys.stdout, sys.stderr) if _wrap(stream)]
    try:
        yield
    finally:
        for stream in wrapped:
            for name in ("write", "flush"):
                method = getattr(stream, name)
                if hasattr(method, "wrapped"):  # else others, such as W&B's client, came after us
                    setattr(stream, name, method.wrapped)


def _wrap(stream: Any) -> bool:
    """Wrap a stream's methods; return whether they were not yet."""
    write, flush = getattr(stream, "write", None), getattr(stream, "flush", None)
    if write is None or flush is None or hasattr(flush, "wrapped"):
        return False
    try:
        stream.flush = _surviving(flush, stream)
        stream.write = _surviving(write, stream)
    except AttributeError:
        return False  # a stand-in of some framework, which keeps what it gets in memory
    return True


def _surviving(method: Callable[..., Any], stream: Any) -> Any:
    def survives(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except OSError as error:
            if error.errno not in _PASSING:
                _drop(stream)
        except ValueError:  # closed
            pass
        return len(arguments[0]) if arguments else None

    survives.wrapped = method  # type: ignore[attr-defined]
    if hasattr(method, "masks_keys"):
        survives.masks_keys = method.masks_keys  # type: ignore[attr-defined]
    return survives


def _drop(stream: Any) -> None:
    """Send what follows nowhere, also that of C libraries and of processes started from here."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
