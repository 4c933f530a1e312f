"""Who owns a trial, a worker's place, an agent's run or a download; and whether the owner lives.

An owner is a process, named by host, its boot, PID namespace, process id, start and a random token.
On this host, since the same boot and in this namespace, it is alive while its process is. Of any
other owner only its heartbeat tells: it writes a new time into its record every
`HEARTBEAT_SECONDS`, and is dead once the record has not changed for `LEASE_SECONDS`, counted by the
clock of the process that watches, and only while it did watch: where a look comes late (a file
server that was away, a machine asleep) the owner may have been kept from writing, too. The clocks
of two machines are never compared, with one exception: who needs an answer at once (`owned`, as
``status`` does) and has not watched for long enough goes by the time in the record, and allows
clocks to differ by `SKEW_SECONDS`, or by its file's age. Who may wait asks `liveness` again.

Two attempts of one trial are told apart by their tokens, which no new folder begins anew.

Example::

    record = owner_record()                     # {"state": "running", "owner": ..., "lease": ...}
    owned(record)                               # whether another live process has it
    with ProcessLock(folder / ".lock", timeout=60):
        ...
"""

from __future__ import annotations

import calendar
import contextlib
import errno
import functools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.machine import has_proc

if TYPE_CHECKING:
    from filelock import BaseFileLock

LEASE_SECONDS = 180.0
"""How long a silent owner that can't be looked at from here is believed to be alive."""
HEARTBEAT_SECONDS = 30.0
"""How often an owner renews its lease."""
SKEW_SECONDS = 600.0
"""How far the clocks of two machines may differ where there is no time to watch."""
_POLL_SECONDS = 1.0


class LostLease(Exception):
    """Another attempt has taken this over; this process must not write to it any more."""


# --- owners


def new_owner() -> dict[str, Any]:
    """Return this process as an owner, under a token that nobody else has."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": start_ticks(pid),
        "namespace": pid_namespace(),
        "boot": boot_id(),
        "token": os.urandom(16).hex(),
    }


def owner_record(owner: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a record tells of a live owner: who it is, its lease, Slurm's ids.

    Args:
        owner: of `new_owner`, by one that renews its record; None: a new one.
    """
    return {
        "state": "running",
        "owner": dict(owner or new_owner()),
        "lease": lease_end(),
        "slurm": slurm_ids(),
    }


def lease_end() -> float:
    """Return when a lease that begins now runs out. It is also the heartbeat: a new value."""
    return time.time() + LEASE_SECONDS


def owned(record: Mapping[str, Any], file: Path | None = None) -> bool:
    """Return at once whether a live process, other than this one, owns what the record tells of.

    A process that asks again and again goes by what it has seen change meanwhile; one that asks
    for the first time goes by the time in the record, which `SKEW_SECONDS` are added to.

    Args:
        record: as `owner_record` makes it.
        file: that holds the record, in a folder that may be written to: its age decides in place of
            the time in the record.
    """
    alive = liveness(record)
    if alive is not None:
        return alive
    if file is not None:
        age = seconds_since_written(file)
        return age is None or age < LEASE_SECONDS
    return time.time() < _end_of(record) + SKEW_SECONDS


def liveness(record: Mapping[str, Any]) -> bool | None:
    """Return whether a live process, other than this one, owns what the record tells of.

    None: not to be known yet, ask again. Each call is a look: what changes between two is alive.
    """
    return _is_alive(record) if record.get("state") == "running" else False


def believed(record: Mapping[str, Any]) -> bool | None:
    """Return the same, where a lease that is fresh by this machine's clock is taken for alive."""
    alive = liveness(record)
    fresh = 0 < _end_of(record) - time.time() <= LEASE_SECONDS
    return True if alive is None and fresh else alive


def watch_owner(read: Callable[[], Mapping[str, Any]], on_wait: Callable[[], None]) -> bool:
    """Return whether a live process, other than this one, owns what a record tells of, for sure.

    Where only silence can tell, the record is watched until it changes, or has not changed for
    `LEASE_SECONDS`. A lease that is fresh by this machine's clock is believed at once.

    Args:
        read: returns the record as it is now.
        on_wait: called before each pause; it may raise to give up.
    """
    while True:
        alive = believed(read())
        if alive is not None:
            return alive
        on_wait()
        time.sleep(min(_POLL_SECONDS, LEASE_SECONDS / 10))


def _is_alive(record: Mapping[str, Any]) -> bool | None:
    """Return whether the record's owner lives; None: not to be known yet."""
    owner = record.get("owner")
    if not isinstance(owner, Mapping) or _requeued_since(record.get("slurm")):
        return False  # if the job's former self lives on after all, its writes are refused
    pid, started = owner.get("pid"), owner.get("started")
    if _is_here(owner) and isinstance(pid, int) and started is not None:
        return pid != os.getpid() and start_ticks(pid) == started
    if _end_of(record) <= 0:
        return False  # given up
    # one owner may have several records, and an older version's has no token
    names = *(owner.get(n) for n in ("token", "host")), pid, started
    names += tuple(record.get(n) for n in ("id", "run", "begun"))
    return _watches.setdefault(str(names), Watch()).is_alive(_end_of(record))


def _is_here(owner: Mapping[str, Any]) -> bool:
    """Whether the owner's process id means the same process here.

    Machines and containers may share a name, and all machines have the same first namespace. Older
    records lack namespaces and boots.
    """
    if owner.get("host") != socket.gethostname():
        return False
    here = {"namespace": pid_namespace(), "boot": boot_id()}
    return all(owner.get(name, value) == value for name, value in here.items())


def _end_of(record: Mapping[str, Any]) -> float:
    try:
        return float(record.get("lease") or 0)
    except (TypeError, ValueError):
        return 0.0


class Watch:
    """What can be said of an owner by looking at something that it changes while it lives.

    Args:
        lease: seconds of silence after which it is dead; None: `LEASE_SECONDS`. A look that comes
            more than half of it after the one before begins anew.
    """

    def __init__(self, lease: float | None = None) -> None:
        self._lease = lease
        self._value: Any = None
        self._since: float | None = None
        self._looked = float("-inf")
        self._renewed = False

    def silence(self, value: Any) -> float:
        """Look; return for how many seconds of this process's clock it was seen to be the same."""
        now = time.monotonic()
        late = now - self._looked > (self._lease or LEASE_SECONDS) / 2
        if late and value == self._value:
            self._renewed = False
        if self._since is None or value != self._value or late:
            self._value, self._since = value, now
        self._looked = now
        return now - self._since

    def is_alive(self, lease: float) -> bool | None:
        """Look; return whether the owner lives, or None: not watched for long enough.

        Only an owner renews a lease; to shorten it is how others end it.
        """
        if self._since is not None and lease != self._value:
            self._renewed = lease > self._value
        if self.silence(lease) >= (self._lease or LEASE_SECONDS):
            return False
        return True if self._renewed else None


_watches: dict[str, Watch] = {}
"""What this process has seen of the owners that it can't look at."""


# --- Slurm


def slurm_ids() -> dict[str, str]:
    """Return the ids of the Slurm job that this process is part of; none outside of a job."""
    job = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT", "JOB_PARTITION")
    names = (*job, "JOB_NODELIST", "JOB_ACCOUNT", "CLUSTER_NAME")
    return {n.lower(): os.environ[f"SLURM_{n}"] for n in names if f"SLURM_{n}" in os.environ}


def _requeued_since(slurm: Any) -> bool:
    """Whether this process belongs to a later start of the job that a record tells of."""
    job = slurm.get("job_id") if isinstance(slurm, Mapping) else None
    if job is None or job != os.environ.get("SLURM_JOB_ID"):
        return False
    try:
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        return restarts > int(slurm.get("restart_count") or 0)
    except (TypeError, ValueError):
        return False  # no number that Slurm has written


# --- processes


def start_ticks(pid: int) -> int | None:
    """Start time of a process, if it lives: in clock ticks since boot (proc(5), stat, field 22).

    With the process id it names a process for good. Without /proc (macOS) it is ps(1)'s second.
    """
    process = _process(pid)
    return None if process is None or process[0][0] in "ZX" else process[1]


def is_zombie(pid: int) -> bool:
    """Whether a process is dead but not waited for: it has its id still, and never works again."""
    process = _process(pid)
    return process is not None and process[0][0] in "ZX"


def _process(pid: int) -> tuple[str, int] | None:
    """Return a process's state and start time; None where there is none."""
    if not has_proc():
        return _process_by_ps(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[19])


def _process_by_ps(pid: int) -> tuple[str, int] | None:
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]  # "stat=,lstart=" is a title
    plain = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    try:
        text = subprocess.check_output(command, env=plain, text=True, stderr=subprocess.DEVNULL)
        state, started = text.split(None, 1)
        return state, calendar.timegm(time.strptime(started.strip(), "%a %b %d %H:%M:%S %Y"))
    except (OSError, ValueError, subprocess.CalledProcessError):  # no such program, or process
        return None


def pid_namespace() -> int | None:
    """Return the number of this process's PID namespace; None where there are none."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


@functools.cache
def boot_id() -> str | None:
    """Return what names this start of this machine among all; None where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


# --- locks

_NO_FLOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
_LOCK_LEASE_SECONDS = 30.0
_LOCK_HEARTBEAT_SECONDS = 5.0


class ProcessLock:
    """A lock of one process among many, for the moments of a change; free when its holder dies.

    It is flock(2)'s. Where the file system has none (NFS or Lustre without a lock daemon) a lock
    file beside it, kept fresh by a heartbeat, does as well: a dead holder's is broken at once on
    this host, after `_LOCK_LEASE_SECONDS` of silence elsewhere. It may be taken again by who has
    it.

    Args:
        path: the lock's file.
        timeout: seconds to wait for it; negative: for ever.
    """

    def __init__(self, path: Path, timeout: float = -1) -> None:
        from filelock import FileLock

        self.path, self.timeout = path, timeout
        self._lock: BaseFileLock = FileLock(path, timeout=timeout, fallback_to_soft=False)

    @property
    def is_locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock.is_locked

    def acquire(self, timeout: float | None = None) -> None:
        """Take the lock.

        Raises:
            filelock.Timeout: another has it for as long.
        """
        seconds = self.timeout if timeout is None else timeout
        try:
            self._lock.acquire(seconds)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            self._lock = _soft_lock(self.path, seconds)
            self._acquire_soft(seconds)

    def _acquire_soft(self, seconds: float) -> None:
        from filelock import Timeout

        try:
            self._lock.acquire(seconds)
        except Timeout:
            # Silence takes its time to be sure of, also for who would not wait for the living.
            if 0 <= seconds <= _LOCK_LEASE_SECONDS and _seems_silent(Path(self._lock.lock_file)):
                self._lock.acquire(_LOCK_LEASE_SECONDS + 2 * _LOCK_HEARTBEAT_SECONDS)
            else:
                raise

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __enter__(self) -> ProcessLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _soft_lock(path: Path, timeout: float) -> BaseFileLock:
    from filelock import SoftFileLease

    return SoftFileLease(
        path.with_name(f"{path.name}.soft"),
        lease_duration=_LOCK_LEASE_SECONDS,
        heartbeat_interval=_LOCK_HEARTBEAT_SECONDS,
        timeout=timeout,
    )


def _seems_silent(path: Path) -> bool:
    seconds = seconds_since_written(path)
    return seconds is not None and seconds >= _LOCK_LEASE_SECONDS


def seconds_since_written(path: Path) -> float | None:
    """Return how old a file's content is by its file system's clock, which all machines share.

    None: the file is not there, or nothing can be written beside it.
    """
    probe = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    with contextlib.suppress(OSError):
        try:
            probe.touch()
            return probe.stat().st_mtime - path.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)
    return None
