"""One worker for one file, across processes, users and nodes.

Example::

    with one_worker(path, ready=lambda: target.exists(), waiting=print) as claim:
        if claim is not None:
            work()
            claim.check()

The claim is ``filelock.SoftFileLease``: a file made with O_EXCL (atomic on NFS since version 3),
kept fresh by a heartbeat. ``flock`` would be simpler, but Lustre mounted without ``-o flock``
refuses it, and NFS mounted with ``nolock`` or Lustre with ``localflock`` grants it to every node
at once. After ``kill -9`` a process on the same host takes over at once (the owner is seen to be
dead), one on another host after ``LEASE_SECONDS`` without a heartbeat.

A lease can expire under a worker that was suspended and wakes up again, so the worker calls
``claim.check()`` before it makes its result visible, and writes only in its own staging folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.atomic import make_folder
from mlmodeldev.lease import LostLease, Watch, is_zombie, pid_namespace, start_ticks

if TYPE_CHECKING:
    from filelock import SoftFileLease

LEASE_SECONDS = 60.0
"""Silence after which another host's claim is taken over. NFS may show times 3 s late."""

HEARTBEAT_SECONDS = 10.0
_FIRST_POLL_SECONDS = 0.05
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of linux/proc_ns.h
_LAST_POLL_SECONDS = 2.0
_FIRST_RETRY_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_DOOR_SECONDS = 1.0

on_wait: list[Callable[[], None]] = []
"""Called while another is waited for; they may raise to give up, as where a signal has come."""


class ClaimLost(LostLease):
    """Another worker holds the claim now: leave the result to it."""


class Claim:
    """The right to do the work; ``token`` is unique to it and names its staging folder."""

    def __init__(self, lease: SoftFileLease) -> None:
        self._lease = lease
        self.token = str(lease.token)

    def check(self) -> None:
        """Raise ``ClaimLost`` unless the claim is still ours."""
        with suppress(OSError):
            if self.token in Path(self._lease.lock_file).read_text("utf-8"):
                return
        raise ClaimLost(self._lease.lock_file)


@contextmanager
def one_worker(
    path: Path, ready: Callable[[], bool], waiting: Callable[[float], None]
) -> Iterator[Claim | None]:
    """Enter with a claim, or with ``None`` as soon as ``ready()`` says that the work is done.

    Args:
        path: The lock file; its folder exists. It is gone when nobody works.
        ready: Asked before the claim is tried and between tries, and again under the claim.
        waiting: Called between tries with the seconds waited so far; it may raise to give up.
    """
    lease = _acquire(path, ready, waiting)
    if lease is None:
        yield None
        return
    try:
        yield None if ready() else Claim(lease)
    finally:
        with suppress(OSError):  # a claim that was taken over is not ours to remove
            lease.release()


def _acquire(
    path: Path, ready: Callable[[], bool], waiting: Callable[[float], None]
) -> SoftFileLease | None:
    tries = _Tries(path)
    start = time.monotonic()
    while not ready():
        lease = tries.claim()
        if lease is not None:
            return lease
        waited = time.monotonic() - start
        waiting(waited)
        for look in on_wait:
            look()
        # A tenth of the time waited: little delay for the short, few look-ups for the long.
        time.sleep(min(max(waited / 10, _FIRST_POLL_SECONDS), _LAST_POLL_SECONDS))
    return None


class _Tries:
    """Claims a file: at once where it is free, else when its owner seems to be gone.

    A hundred waiting tasks must cost the node and the file system little. While the owner of the
    claim is alive on this host, or for five seconds where it is on another one, they look at one
    small file and don't even import ``filelock``. Where a hundred start at once on a free file,
    one goes first through the door; the door is a courtesy only, and open after a second.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._door = path.with_name(f"{path.name}.door")
        self._lease: SoftFileLease | None = None
        self._foreign = _ForeignClaim(path)
        self._start = time.monotonic()
        self._next = self._start + _FIRST_RETRY_SECONDS

    def claim(self) -> SoftFileLease | None:
        """Return the lease, or ``None`` as long as it is another's."""
        now = time.monotonic()
        if self._path.exists():
            if now < self._next and _owner_state(self._path) == "alive":
                return None
        elif not self._enter_door(now):
            return None
        self._next = now + _RETRY_SECONDS
        lease = self._try()
        self._door.unlink(missing_ok=True)
        return lease

    def _enter_door(self, now: float) -> bool:
        try:
            make_folder(self._path.parent)  # who failed before us may have tidied it away
            self._door.open("xb").close()
        except OSError:
            return now - self._start > _DOOR_SECONDS
        return True

    def _try(self) -> SoftFileLease | None:
        from filelock import SoftFileLease, Timeout

        # One object for all tries: it times the silence of the owner.
        self._lease = self._lease or SoftFileLease(
            self._path,
            lease_duration=LEASE_SECONDS,
            heartbeat_interval=HEARTBEAT_SECONDS,
            thread_local=False,
        )
        try:
            self._lease.acquire(blocking=False)
        except Timeout:
            if _owner_state(self._path) == "zombie":  # which filelock takes for alive
                self._path.unlink(missing_ok=True)
            return None
        except PermissionError:
            self._foreign.expire()
            return None
        return self._lease


def _owner_state(path: Path) -> str:
    """Return ``alive`` (or not to be known from here), ``dead`` or ``zombie``.

    A killed process whose parent doesn't wait for it still has its pid, but never works again.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
        owner = dict(line.partition("=")[::2] for line in lines)
        pid = int(owner.get("pid", ""))
    except FileNotFoundError:
        return "dead"
    except (OSError, ValueError):
        return "alive"
    if not _is_this_host(owner.get("host", "")) or start_ticks(pid) is not None:
        return "alive"
    return "zombie" if is_zombie(pid) else "dead"


def _is_this_host(host: str) -> bool:
    """Say whether a pid of ``host`` (as filelock writes it, with its pid namespace) is ours."""
    namespace = pid_namespace()
    if namespace in (None, _INITIAL_PID_NAMESPACE):
        return host == os.uname().nodename
    return host.startswith(os.uname().nodename + "?") and host.endswith(f"{namespace:x}")


class _ForeignClaim:
    """Another user's lock file: filelock won't write to it, so its silence is timed here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._watch = Watch(LEASE_SECONDS)

    def expire(self) -> None:
        """Remove the file once it has not changed for ``LEASE_SECONDS``.

        Raises:
            PermissionError: There is no such file, so it is the folder that can't be written.
        """
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            if not os.access(self._path.parent, os.W_OK | os.X_OK):
                raise
            return
        if self._watch.silence((status.st_ino, status.st_mtime_ns)) >= LEASE_SECONDS:
            with suppress(FileNotFoundError):
                self._path.unlink()
