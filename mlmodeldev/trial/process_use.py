"""CPU time and memory of a trial's processes on this node: its own, and all that they start.

Example::

    processes = ProcessUse()
    processes.cpu_seconds()                  # since `processes` was made
    processes.memory().now_gib

Ranks that srun or torchrun has started beside this one are counted with it: they are the children
of one parent. Where that parent has other children too, this process stands for each rank.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psutil import Process

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """The memory of processes.

    Attributes:
        now_gib: pages that several of the processes share counted once.
        peak_gib: the same, with what this process had at most since the look before.
    """

    now_gib: float
    peak_gib: float


class ProcessUse:
    """Read the use of a trial's processes.

    Args:
        ranks: of the trial on this node that this process has not started itself, it included.
    """

    def __init__(self, ranks: int = 1) -> None:
        import psutil

        self._own = psutil.Process()
        self._parent = self._parent_of(ranks)
        self._alike = ranks if self._parent is None else 1
        self._most = _own_peak()
        self._begin = 0.0
        self._begin = self.cpu_seconds()

    def _parent_of(self, ranks: int) -> Process | None:
        """Return the process whose only children are the ranks of this node."""
        parent = self._own.parent() if ranks > 1 else None
        return parent if parent is not None and len(parent.children()) == ranks else None

    def memory(self) -> Memory:
        """Return the memory; where processes share many GiB, that takes a tenth of a second."""
        memory = self._alike * sum(self._memory(each) for each in self._processes())
        most, spike = _own_peak(), 0.0
        if most > self._most:  # higher than ever, between two reads
            spike = max(0.0, most - self._own.memory_info().rss)
            self._most = most
        return Memory(memory / GIB, (memory + self._alike * spike) / GIB)

    def cpu_seconds(self) -> float:
        """Return the CPU time since the beginning: user and system, of all cores.

        A process has the time of the children for which it has waited. It is read before them, so
        one that ends meanwhile is missed for this time rather than counted twice.
        """
        total = 0.0
        for each in self._processes():
            with _gone():
                total += sum(each.cpu_times()[:4])  # user, system; the same of its children
        return self._alike * total - self._begin

    def _processes(self) -> Iterator[Process]:
        """Yield the processes, parents before their children."""
        if self._parent is None:
            yield self._own
        root = self._parent or self._own
        with _gone():
            yield from root.children(recursive=True)

    def _memory(self, process: Process) -> float:
        """Return the bytes of a process: its share of pages that others have as well (PSS).

        Where Linux tells of no shares, all pages of this process, and those of each other process
        that it has for itself alone.
        """
        import psutil

        with _gone():
            try:
                return float(process.memory_full_info().pss)
            except (psutil.AccessDenied, AttributeError):
                used = process.memory_info()
                return float(used.rss - (0 if process == self._own else used.shared))
        return 0.0


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """Pass over processes that have ended, or are another's."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        yield


def _own_peak() -> float:
    """Return the most memory that this process has had, bytes; shared pages count whole.

    The kernel's other figure, ``ru_maxrss``, is never below that of the program which started this.
    """
    with contextlib.suppress(OSError, ValueError), Path("/proc/self/status").open("rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
