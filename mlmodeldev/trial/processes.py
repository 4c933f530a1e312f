"""The processes of a trial on this node, seen from outside: what they do, and their end.

Linux tells of them under /proc; nothing here is heavy to import.

Example::

    processes = Processes(pid, without=os.getpid())
    processes.activity(elapsed=1.0)         # Activity.NONE: nothing moves
    processes.freeze()
    processes.kill()
"""

from __future__ import annotations

import contextlib
import os
import signal

from mlmodeldev.trial.patience import Activity

_CPU_SHARE = 0.1
_BYTES = 1 << 20
_WAITS_OF_FILES = ("request_wait_answer", "fuse_", "nfs", "rpc_wait")
"""What a process sleeps in that waits for a file system without being in state D."""


def read(path: str) -> str:
    """Return a file's text; empty where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""


def names_in(folder: str) -> list[str]:
    """Return the names in a folder."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def fields_of(stat: str) -> list[str]:
    """Return the fields of proc(5)'s stat from the state on, behind the name in brackets."""
    return stat.rpartition(")")[2].split()


class Processes:
    """A process and all that it has started.

    Args:
        root: the process.
        without: one that does not count, with what it starts: the watcher itself.
    """

    def __init__(self, root: int, without: int) -> None:
        self.root, self.without = root, without
        self._cpu = self._moved = 0
        self._frozen: list[int] = []

    def all(self) -> list[int]:
        """Return the living ones, parents before their children."""
        children: dict[int, list[int]] = {}
        for name in names_in("/proc"):
            fields = fields_of(read(f"/proc/{name}/stat")) if name.isdigit() else []
            if len(fields) > 1 and fields[0] not in "ZX":
                children.setdefault(int(fields[1]), []).append(int(name))
        family = [self.root]
        for process in family:
            family += [each for each in children.get(process, ()) if each != self.without]
        return family

    def activity(self, elapsed: float) -> Activity:
        """Return what they have been doing since the call before, so many seconds ago."""
        blocked = runs = False
        cpu = moved = 0
        for process in self.all():
            here = f"/proc/{process}"
            fields = fields_of(read(f"{here}/stat"))
            cpu += sum(map(int, fields[11:13]))
            moved += _bytes_moved(read(f"{here}/io"))
            states = _thread_states(process)
            runs = runs or fields[:1] == ["R"]  # other threads wake up now and then, and wait
            blocked = blocked or "D" in states or _waits_for_file(here) or _is_traced(here)
        cpu_before, self._cpu = self._cpu, cpu
        moved_before, self._moved = self._moved, moved
        if blocked:
            return Activity.BLOCKED
        computed = cpu - cpu_before > _CPU_SHARE * elapsed * os.sysconf("SC_CLK_TCK")
        if cpu_before and (runs or computed or moved - moved_before > _BYTES):
            return Activity.COMPUTING
        return Activity.NONE

    def freeze(self) -> None:
        """Stop all, so that none writes any more."""
        while new := [each for each in self.all() if each not in self._frozen]:
            for process in new:
                _send(process, signal.SIGSTOP)
            self._frozen += new

    def kill(self) -> None:
        """End all, the first one last: a launcher ends what is left when that is gone."""
        for process in reversed(self._frozen or self.all()):
            _send(process, signal.SIGKILL)


def catches(process: int, number: int) -> bool:
    """Return whether a process has a handler for a signal and is not stopped."""
    status = read(f"/proc/{process}/status")
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if lines.get("State", "T").strip()[:1] in "TtZX":
        return False
    return bool(int(lines.get("SigCgt", "0").strip(), 16) >> (number - 1) & 1)


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def _thread_states(process: int) -> str:
    with contextlib.suppress(OSError):
        threads = names_in(f"/proc/{process}/task")
        stats = [read(f"/proc/{process}/task/{thread}/stat") for thread in threads]
        return "".join(fields_of(stat)[0] for stat in stats if stat)
    return ""


def _bytes_moved(text: str) -> int:
    lines = dict(line.split(": ") for line in text.splitlines() if ": " in line)
    return int(lines.get("rchar", 0)) + int(lines.get("wchar", 0))


def _waits_for_file(here: str) -> bool:
    return read(f"{here}/wchan").startswith(_WAITS_OF_FILES)


def _is_traced(here: str) -> bool:
    """Whether a debugger has it."""
    status = read(f"{here}/status")
    return "TracerPid:" in status and "TracerPid:\t0\n" not in status
