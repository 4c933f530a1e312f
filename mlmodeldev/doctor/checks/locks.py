"""The file system of the runs folder: whether its locks exclude, and whose clock it goes by."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mlmodeldev.doctor.line import Line, Scope, fail, nearest_folder, ok, warn
from mlmodeldev.lease import SKEW_SECONDS

SKEW = 30.0
"""Seconds of difference that are told; network file systems show times some seconds late."""
_LOCAL_LOCKS = {
    "nfs": ("nolock", "local_lock=all", "local_lock=flock"),
    "nfs4": ("local_lock=all", "local_lock=flock"),
    "lustre": ("localflock",),
}
"""Options of a mount with which each node grants the same lock, by the kind of file system."""
_PARALLEL = ("lustre", "nfs", "nfs4", "gpfs", "beegfs", "ceph", "cifs", "fuse.sshfs")


def locks(scope: Scope) -> Iterator[Line]:
    """Take a lock twice: the second must be refused, on this machine and on others."""
    from mlmodeldev.slurm.preflight import file_system

    kind = file_system(scope.runs)
    name = f"{scope.runs} ({kind}{', a file system of several nodes' if kind in _PARALLEL else ''})"
    try:
        state = flock_state(nearest_folder(scope.runs))
    except OSError as error:
        yield fail(f"{name}: no lock can be tried: {error.strerror}", f"touch {scope.runs}/probe")
        return
    local = sorted(set(_LOCAL_LOCKS.get(kind, ())) & set(mount_options(scope.runs)))
    if state == "not exclusive":
        what = f"{name}: grants one lock to two at once; two jobs would write the same trial"
        yield fail(what, "python slurm/SlurmTrain.py artefacts.runs_dir=DIR")
    elif state == "none":
        yield warn(
            f"{name}: has no flock; lock files with a heartbeat do as well", "mount | grep flock"
        )
    elif local:
        what = f"{name}: mounted with {local[0]}: locks hold on one node only; submit from one node"
        yield warn(what, "mount | grep lock")
    else:
        yield ok(f"{name}: locks and renames work")


def flock_state(place: Path) -> str:
    """Return ``exclusive``, ``not exclusive`` or ``none``: what flock(2) is worth in a folder.

    Raises:
        OSError: no file can be made there.
    """
    number, name = tempfile.mkstemp(prefix=".doctor-", dir=place)
    with contextlib.ExitStack() as stack:
        stack.callback(os.unlink, name)
        stack.callback(os.close, number)
        other = os.open(name, os.O_RDWR)
        stack.callback(os.close, other)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "none"
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return "exclusive" if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else "none"
    return "not exclusive"


def mount_options(path: Path) -> list[str]:
    """Return the options that the file system of a path is mounted with."""
    from mlmodeldev.slurm import preflight

    place = nearest_folder(path).resolve()
    mounts = [line.split()[1:4] for line in preflight.MOUNTS.read_text().splitlines()]
    above = [(m, options) for m, _, options in mounts if place.is_relative_to(m)]
    return max(above, key=lambda mount: len(mount[0]))[1].split(",") if above else []


def clock(scope: Scope) -> Iterator[Line]:
    """Compare this machine's clock with the one that the runs folder's files get their times by."""
    place = nearest_folder(scope.runs)
    number, name = tempfile.mkstemp(prefix=".doctor-", dir=place)
    try:
        before = time.time()
        os.write(number, b"x")
        os.fsync(number)
        apart = os.fstat(number).st_mtime - before
    finally:
        os.close(number)
        os.unlink(name)  # noqa: PTH108
    yield skew_line(apart, f"the file system of {place}")


def skew_line(apart: float, of: str) -> Line:
    """Return the line of a difference between two clocks.

    Args:
        apart: seconds by which the other is ahead.
        of: whose clock the other is.
    """
    size, way = abs(apart), "behind" if apart > 0 else "ahead of"
    if size <= SKEW:
        return ok(f"this machine's clock and that of {of} agree")
    what = f"this machine's clock is {size:.0f} s {way} that of {of}"
    if size > SKEW_SECONDS:
        what += ": trials that live may be taken for dead"
        return fail(what, "timedatectl status")
    return warn(what, "timedatectl status")
