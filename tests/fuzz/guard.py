"""A watch over one call: no command is run, nothing is written outside a folder, and it ends.

Python tells of such deeds by its audit events (PEP 578) before they are done. A breach is raised as
no `Exception`, so that no ``except Exception`` of the watched code hides it, and is kept besides.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlmodeldev.project import PROJECT_VARIABLE

SECONDS = 10
"""Of computing that one input may take; a hundred times what the slowest takes."""
REAL_SECONDS = 120
_RUNS = frozenset(
    {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}
    | {"os.forkpty", "pty.spawn", "os.startfile", "socket.connect", "socket.getaddrinfo"}
)
_CHANGES = frozenset(
    {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate"}
    | {"os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


ROOT = Path(__file__).parents[2]


@functools.cache
def _import_what_keeps_caches() -> None:
    """Import what makes folders of its own in the user's home as it is first imported."""
    import pytorch_lightning  # noqa: F401


class Breach(BaseException):
    """What must not happen, has been about to."""


class Hang(BaseException):
    """The call does not end."""


class _Watch:
    on = False
    inside = ""
    breaches: list[str] = []  # noqa: RUF012


def trip(*args: object) -> None:
    """Stand for any code that a file brings along: being called at all is the breach."""
    _breach(f"code of the input was run: {args}")


def _breach(what: str) -> None:
    _Watch.breaches.append(what)
    raise Breach(what)


def _hook(event: str, args: tuple[object, ...]) -> None:
    if not _Watch.on:
        return
    if event in _RUNS:
        _breach(f"{event}{args[:2]}")
    elif event == "open":
        path, _, flags = args
        if isinstance(flags, int) and flags & _WRITES:
            _check(event, path)
    elif event in _CHANGES:
        for path in args:
            if isinstance(path, str | bytes | os.PathLike):
                _check(event, path)


def _check(event: str, path: object) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return  # a descriptor, which was opened before
    real = os.path.realpath(os.fsdecode(path))  # links lead out, too
    inside = real.startswith((_Watch.inside, "/dev/null"))
    if not inside and "__pycache__" not in real:
        _breach(f"{event} outside: {real}")


_is_hooked = False


@contextlib.contextmanager
def watched(folder: Path, real: bool = False) -> Iterator[None]:
    """Watch what is done within; the working directory and temporary files are the folder's.

    Args:
        folder: where files may be written.
        real: end what waits for ever, too; pytest's own limit does it in the suite.

    Raises:
        Breach: a command was about to be run, or a file outside to be changed.
        Hang: it did not end.
    """
    global _is_hooked  # noqa: PLW0603, a hook stays for good
    if not _is_hooked:
        sys.addaudithook(_hook)
        _is_hooked = True
    before, temporary = Path.cwd(), tempfile.tempdir
    project = os.environ.get(PROJECT_VARIABLE)
    os.environ[PROJECT_VARIABLE] = project or str(ROOT)
    _import_what_keeps_caches()
    former = signal.signal(signal.SIGVTALRM, _late)
    former_real = signal.signal(signal.SIGALRM, _late) if real else None
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    _Watch.inside, _Watch.breaches = os.path.realpath(folder), []
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    if real:
        signal.setitimer(signal.ITIMER_REAL, REAL_SECONDS)
    _Watch.on = True
    try:
        yield
    finally:
        _Watch.on = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)
        if real:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former_real)
        os.chdir(before)
        tempfile.tempdir = temporary
        del os.environ[PROJECT_VARIABLE]
        if project is not None:
            os.environ[PROJECT_VARIABLE] = project
    if _Watch.breaches:
        raise Breach(_Watch.breaches[0])


def _late(number: int, frame: object) -> None:
    raise Hang(f"more than {SECONDS} s of computing, or {REAL_SECONDS} s of waiting")
