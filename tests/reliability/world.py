"""A small world for owners: machines with clocks of their own, processes that stop anywhere.

The folder and the code that works in it are real. Each process is a thread, and one runs at a time,
until it ends what it does, sleeps, or comes to the place where it is to stop. What the code learns
of the machine (time, host, process ids, whether flock works) comes from the process that runs.

Example::

    with World(Path("/dev/shm/x"), locks="flock") as world:
        process = world.start(machine=0, namespace=1)
        world.run(process, lambda: process.folder.claim(), stop=3)
        world.pass_time(300)
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock._lease
import filelock._marker
import filelock._soft
import pytest

from mlmodeldev import atomic, lease
from mlmodeldev.trial import fenced, folder
from mlmodeldev.trial.folder import TrialFolder

LOCKS = ("flock", "flock of each machine", "ENOLCK", "EOPNOTSUPP")
"""What the file system makes of flock(2)."""
MACHINES = (("node1", "boot1"), ("node2", "boot2"), ("node2", "boot3"))
"""Names of the machines, two of which have the same."""
_BEGIN = 1_800_000_000.0


class _Unwound(BaseException):
    """Ends the thread of a process that was stopped for good."""


class _Os:
    """The module, with another process id."""

    def __init__(self, getpid: Callable[[], int]) -> None:
        self.getpid = getpid

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@dataclass
class Machine:
    """A machine with a clock of its own."""

    name: str
    boot: str
    clock: float = 0.0
    ticks: Any = field(default_factory=lambda: itertools.count(100))


@dataclass(eq=False)
class Process:
    """A process: ``idle`` between its doings, ``asleep`` or ``stopped`` within, ``dead``."""

    machine: Machine
    namespace: int
    pid: int
    started: int
    job: tuple[str, int]
    folder: TrialFolder
    state: str = "idle"
    is_frozen: bool = False
    """By SIGSTOP: it neither beats nor wakes."""
    token: str = ""
    """Of the claim that it makes or has made."""
    doing: str = ""
    wake: float = 0.0
    stop_in: int | None = None
    error: BaseException | None = None
    watches: dict[str, Any] = field(default_factory=dict)
    baton: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    work: Callable[[], Any] = lambda: None
    thread: threading.Thread | None = None


class World:
    """Machines, processes, one folder, and one clock that is right.

    Args:
        place: an empty folder for the trial's.
        locks: one of `LOCKS`.
    """

    def __init__(self, place: Path, locks: str) -> None:
        self.path, self.locks = place / "sweep" / "trial", locks
        self.now, self.current = 0.0, None
        self.machines = [Machine(*each) for each in MACHINES]
        self.processes: list[Process] = []
        self.baton, self.ending = threading.Semaphore(0), False
        self.on_write: Callable[[Process, dict[str, Any]], None] = lambda process, record: None
        self.on_move: Callable[[Process], None] = lambda process: None
        self._taken: dict[tuple[int, str], tuple[Process, int]] = {}
        self._markers: dict[int, float] = {}
        self._patch = pytest.MonkeyPatch()

    current: Process | None

    def __enter__(self) -> World:
        self._learned_from_the_process()
        self._places_to_stop_at()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        shutil.rmtree(self.path.parents[1], ignore_errors=True)
        self.ending = True
        for process in self.processes:
            process.baton.release()
            assert process.thread is not None
            process.thread.join(30)

    # --- processes

    def start(self, machine: int, namespace: int, job: tuple[str, int]) -> Process:
        """Start a process; ids of dead ones are used again."""
        place = self.machines[machine]
        used = {p.pid for p in self._living(place, namespace)}
        pid = next(pid for pid in itertools.count(1) if pid not in used)
        made = Process(place, namespace, pid, next(place.ticks), job, TrialFolder(self.path))
        made.thread = threading.Thread(target=self._life, args=[made], daemon=True)
        made.thread.start()
        self.processes.append(made)
        return made

    def _life(self, process: Process) -> None:
        while True:
            process.baton.acquire()
            if self.ending:
                return
            try:
                process.work()
            except _Unwound:
                return
            except BaseException as error:
                process.error = error
            process.state = "idle"
            self.baton.release()

    def run(
        self, process: Process, work: Callable[[], Any], doing: str, stop: int | None = None
    ) -> None:
        """Let a process do something, up to its end or the place (counted from 0) to stop at."""
        process.work, process.doing, process.error = work, doing, None
        self.go_on(process, stop)

    def go_on(self, process: Process, stop: int | None = None) -> None:
        """Let it go on from where it is."""
        if stop is not None or process.state != "asleep":
            process.stop_in = stop  # where it is to stop is passed in its sleep, too
        process.state = "running"
        self.current = process
        lease._watches = process.watches
        os.environ["SLURM_JOB_ID"] = process.job[0]
        os.environ["SLURM_RESTART_COUNT"] = str(process.job[1])
        process.baton.release()
        self.baton.acquire()
        self.current = None
        soft = self.path / ".record.lock.soft"
        if soft.exists():
            self._markers.setdefault(soft.stat().st_ino, self.now)

    def kill(self, process: Process) -> None:
        """End it as SIGKILL does: what it wrote stays, the kernel's locks are free."""
        process.state = "dead"
        self._taken = {k: v for k, v in self._taken.items() if v[0] is not process}

    def reboot(self, machine: int) -> None:
        """End all processes of a machine; process ids and starts begin anew."""
        place = self.machines[machine]
        for process in self.processes:
            if process.machine is place:
                self.kill(process)
        place.boot += "+"
        place.ticks = itertools.count(100)

    def _give_back(self, state: str) -> None:
        process = self.current
        assert process is not None
        process.state = state
        self.baton.release()
        process.baton.acquire()
        if self.ending:
            raise _Unwound

    def place(self) -> None:
        """A place where a process may have to stop."""
        process = self.current
        if process is None or process.stop_in is None:
            return
        process.stop_in -= 1
        if process.stop_in < 0:
            process.stop_in = None
            self._give_back("stopped")

    # --- time

    def due(self) -> list[Process]:
        """Return who sleeps, and by when they wake, the next first."""
        asleep = [p for p in self.processes if p.state == "asleep" and not p.is_frozen]
        return sorted(asleep, key=lambda p: p.wake)

    def _sleep(self, seconds: float) -> None:
        if self.current is None:
            _sleep(seconds)
            return
        self.current.wake = self.now + max(seconds, 2.0)  # polls more often would tell no more
        self._give_back("asleep")

    # --- what a process learns

    def _learned_from_the_process(self) -> None:
        me = lambda: self.current  # noqa: E731
        patch = self._patch.setattr
        patch(time, "time", lambda: _BEGIN + self.now + me().machine.clock if me() else _time())
        patch(time, "monotonic", lambda: self.now + 1e6 if me() else _monotonic())
        patch(time, "perf_counter", lambda: self.now + 1e6 if me() else _perf_counter())
        patch(time, "sleep", self._sleep)
        # not `os` itself: that would look like a fork to filelock
        mine = _Os(lambda: me().pid if me() else os.getpid())
        for module in (lease, filelock._lease, filelock._marker, filelock._soft):
            patch(module, "os", mine)
        patch(os, "fsync", lambda number: None)
        patch(socket, "gethostname", lambda: me().machine.name if me() else _gethostname())
        patch(lease, "pid_namespace", lambda: me().namespace)
        patch(lease, "boot_id", lambda: me().machine.boot)
        patch(lease, "start_ticks", self._start_ticks)
        patch(lease, "_watches", {})
        patch(lease, "_seems_silent", self._seems_silent)
        patch(lease, "_POLL_SECONDS", 15.0)
        patch(fcntl, "flock", self._flock)
        for name in ("JOB_ID", "RESTART_COUNT"):
            self._patch.setenv(f"SLURM_{name}", "")
        for module in (filelock._lease, filelock._marker, filelock._soft):
            patch(module, "owner_is_stale", self._is_stale)
        for module in (filelock._marker, filelock._soft):
            patch(module, "host_name", self._name_of_place)
            patch(module, "process_start_token", self._start_token)
        patch(folder, "print", lambda *_, **__: None, raising=False)

    def _living(self, machine: Machine, namespace: int) -> list[Process]:
        there = [p for p in self.processes if p.machine is machine and p.namespace == namespace]
        return [p for p in there if p.state != "dead"]

    def _start_ticks(self, pid: int) -> int | None:
        assert self.current is not None
        there = self._living(self.current.machine, self.current.namespace)
        return next((p.started for p in there if p.pid == pid), None)

    def _name_of_place(self) -> str:
        assert self.current is not None
        machine = self.current.machine
        return f"{machine.name}?pidns-{self.current.namespace:x}"

    def _start_token(self, pid: int) -> int | None:
        ticks = self._start_ticks(pid)
        assert self.current is not None
        boot = int.from_bytes(self.current.machine.boot.encode())
        return None if ticks is None else (boot << 64) + ticks

    def _is_stale(self, pid: int, host: str, started: int | None) -> bool:
        return host == self._name_of_place() and self._start_token(pid) != started

    def _seems_silent(self, path: Path) -> bool:
        born = self._markers.get(path.stat().st_ino, self.now) if path.exists() else self.now
        return self.now - born >= lease._LOCK_LEASE_SECONDS

    def _flock(self, number: int, operation: int) -> None:
        process = self.current
        assert process is not None
        if self.locks in ("ENOLCK", "EOPNOTSUPP"):
            raise OSError(getattr(errno, self.locks), "no locks here")
        own = process.machine.boot if self.locks == "flock of each machine" else ""
        key = os.fstat(number).st_ino, own
        if operation & fcntl.LOCK_UN:
            if self._taken.get(key, (None, 0))[1] == number:
                self._taken.pop(key)
        elif self._taken.setdefault(key, (process, number)) != (process, number):
            raise BlockingIOError(errno.EWOULDBLOCK, "taken")

    # --- where a process may have to stop

    def _places_to_stop_at(self) -> None:
        """Before and after each look at, and change of, what processes share."""
        self._around(TrialFolder, "read")
        self._around(lease.ProcessLock, "acquire")
        self._around(lease.ProcessLock, "release", after=False)
        self._around(atomic, "_temporary", after=False)
        self._around(folder, "remove_leftovers")
        self._around(fenced, "take")
        rename, move, new_owner = atomic._rename, Path.rename, lease.new_owner

        def noted_rename(temporary: Path, path: Path, shared: bool = False) -> None:
            self.place()
            rename(temporary, path, shared)
            if path == self.path / "trial.json" and self.current is not None:
                self.on_write(self.current, TrialFolder.read.__wrapped__(TrialFolder(self.path)))
            self.place()

        def noted_move(path: Path, target: Path) -> Path:
            self.place()
            moved = move(path, target)
            if path == self.path and self.current is not None:
                self.on_move(self.current)
            self.place()
            return moved

        def noted_owner() -> dict[str, Any]:
            owner = new_owner()
            if self.current is not None:
                self.current.token = owner["token"]
            return owner

        self._patch.setattr(atomic, "_rename", noted_rename)
        self._patch.setattr(Path, "rename", noted_move)
        self._patch.setattr(lease, "new_owner", noted_owner)

    def _around(self, owner: Any, name: str, after: bool = True) -> None:
        real = getattr(owner, name)

        def around(*args: Any, **more: Any) -> Any:
            self.place()
            result = real(*args, **more)
            if after:
                self.place()
            return result

        around.__wrapped__ = real  # type: ignore[attr-defined]
        self._patch.setattr(owner, name, around)


_sleep, _time, _monotonic, _perf_counter = time.sleep, time.time, time.monotonic, time.perf_counter
_gethostname = socket.gethostname
