"""A full ``/dev/shm``, said in one line: a loader's workers hand their batches over in it.

torch says so in several ways, at the end of a long traceback: a worker dies of a bus error, a file
of shared memory can't be made or written, or a worker is just gone.

Example::

    line = shared_memory_full(error)      # None: the error has another cause
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator

FOLDER = "/dev/shm"
EXIT_STATUS = errno.ENOSPC
"""Of a loader's worker that can't hand a batch over for lack of space."""

_SIGNS = re.compile(
    r"out of shared memory|killed by signal: Bus error|/torch_\d\S*>?:? .*No space left on device"
    r"|No space left on device.*/torch_|unable to allocate shared memory|unable to mmap .*/torch_"
    rf"|worker \(pid\W.* exited unexpectedly with exit code {EXIT_STATUS}\b",
    re.DOTALL,
)


def shared_memory_full(error: BaseException) -> str | None:
    """Return what is to be done about an error that comes of a full ``/dev/shm``; else None."""
    if not any(_SIGNS.search(str(each)) for each in _chain(error)):
        return None
    return (
        f"{FOLDER}{_size()} is full: a loader's worker can't hand a batch over."
        " processing.num_workers=0 needs none of it, fewer workers or smaller batches less;"
        " a container gets more by --shm-size=8g or --ipc=host"
    )


def _size() -> str:
    try:
        disk = shutil.disk_usage(FOLDER)
    except OSError:
        return ""
    return f" ({disk.total / 2**20:,.0f} MiB, {disk.free / 2**20:,.0f} free now)"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead:
        each = ahead.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            ahead += [each.__cause__, each.__context__]
