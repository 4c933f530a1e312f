"""Where a trial's processes are: the stacks of all their threads, also of those that hang in C.

Each process writes its own from a signal's handler in C (`faulthandler`), into a memory that the
watcher has too; what the kernel tells is added. A stopped process runs no handler: of it there is
what the kernel tells.

Example::

    text = stacks_of([pid], memory)
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable

from mlmodeldev.trial.processes import catches, fields_of, names_in, read

SIGNAL = signal.SIGRTMAX - 7 if hasattr(signal, "SIGRTMAX") else signal.SIGUSR2
"""Upon which a process of a trial writes its stacks; few programs use it. macOS has none such, and
nobody watches there."""
_WRITE_SECONDS = 3.0
_QUIET_SECONDS = 0.2
_MOST_BYTES = 256 << 10
_KERNEL_LINES = 12


def stacks_of(processes: Iterable[int], memory: int) -> str:
    """Return the stacks of processes.

    Args:
        memory: descriptor of the file that their handlers write to.
    """
    return "\n".join(f"{_head(each)}\n{_python_stacks(each, memory)}" for each in processes)


def _head(process: int) -> str:
    here = f"/proc/{process}"
    name = read(f"{here}/comm").strip()
    lines = [f"==== process {process} ({name}): {_state(here)}"]
    with contextlib.suppress(OSError):
        threads = sorted(map(int, names_in(f"{here}/task")))
        for thread in threads if len(threads) > 1 else ():
            lines.append(f"  thread {thread}: {_state(f'{here}/task/{thread}')}")
    kernel = read(f"{here}/stack").strip()  # root alone may read it
    lines += [f"  kernel: {line}" for line in kernel.splitlines()[:_KERNEL_LINES]]
    return "\n".join(lines)


def _state(here: str) -> str:
    fields = fields_of(read(f"{here}/stat"))
    where = read(f"{here}/wchan")
    waits = f", waits in {where}" if where not in ("", "0") else ""
    return f"state {fields[0]}{waits}" if fields else "gone"


def _python_stacks(process: int, memory: int) -> str:
    if not catches(process, SIGNAL):
        return "  (runs no handler: stopped, or no Python of the trial)\n"
    begin = os.fstat(memory).st_size
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, SIGNAL)
    size, now = begin, time.monotonic()
    deadline, quiet_since = now + _WRITE_SECONDS, now
    while now < deadline and (size == begin or now - quiet_since < _QUIET_SECONDS):
        time.sleep(0.02)
        now = time.monotonic()
        if (grown := os.fstat(memory).st_size) != size:
            size, quiet_since = grown, now
    return os.pread(memory, min(size - begin, _MOST_BYTES), begin).decode(errors="replace")
