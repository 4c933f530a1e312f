"""What this process may use of the machine: cores, GPUs, ports; and what it keeps from others.

Example, four trials at once on 8 cores and 2 GPUs::

    share_cores()            # before torch is imported
    trial_resources(4)[1]
    # {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "1", "MASTER_PORT": "40211"}
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlmodeldev.errors import UsageError


def keep_from_others() -> None:
    """Let nothing that this process makes be writable for everybody, whatever the umask is.

    Under umask 000 anybody on the cluster could change a trial's record, its checkpoints or the
    copy of its code, and so run code as whoever starts the next trial.
    """
    os.umask(os.umask(0o077) | 0o002)


def share_cores() -> None:
    """Let waiting threads sleep, unless the environment says otherwise; before torch is loaded.

    By default they spin. Where two trials share two cores, or anything else runs beside one, each
    of a step's hundreds of parallel regions then waits for a thread that a spinning one keeps
    off its core: steps of 35 ms were seen to take 600 ms to 9 s. Asleep, 37 ms. What waking up
    costs on an idle machine is a few percent for small models, and nothing for large ones.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def home() -> Path | None:
    """Return the user's home; None: there is none.

    So in containers, where no HOME is set and the user's number has no name.
    """
    try:
        return Path.home()
    except RuntimeError:
        return None


def user_cache() -> Path | None:
    """Return where the user's programs keep what can be made again; None: nowhere."""
    given, own = os.environ.get("XDG_CACHE_HOME"), home()
    cache = Path(given) if given else own and own / ".cache"
    return cache and cache / "mlmodeldev"


_SOCKET_ROOM = 34
"""Letters that multiprocessing adds to the folder of temporary files for a socket's name."""
_SOCKET_PATH = 107
"""Letters of a socket's path at most (unix(7))."""


def shorten_socket_paths() -> None:
    """Let multiprocessing keep its sockets elsewhere, where TMPDIR is too long a name for them.

    A loader's worker could not hand its batches over otherwise, nor the pool start a trial. Other
    temporary files stay where they are.
    """
    if len(os.fsencode(tempfile.gettempdir())) + _SOCKET_ROOM <= _SOCKET_PATH:
        return
    from multiprocessing import util

    before = tempfile.tempdir
    for short in ("/tmp", "/var/tmp", "/dev/shm"):
        tempfile.tempdir = short
        try:
            util.get_temp_dir()  # makes one, and keeps to it in this process and its children
            return
        except OSError:
            continue
        finally:
            tempfile.tempdir = before


def number_in(variables: Mapping[str, str], name: str, default: int) -> int:
    """Return the whole number that a variable holds; the default where it is not set, or empty.

    Raises:
        UsageError: it holds something else.
    """
    text = variables.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{name}={text}: must be a whole number; unset it, or set it right")
    return int(text)


def seconds_in(name: str, default: float) -> float:
    """Return the seconds that a variable of the environment holds; the default where it is not set.

    Raises:
        UsageError: it holds something else.
    """
    text = os.environ.get(name, "").strip()
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise UsageError(f"{name}={text}: must be a number of seconds")
    return seconds


@functools.cache
def has_proc() -> bool:
    """Return whether the system tells of its processes under /proc, as Linux does."""
    return Path("/proc/self/stat").exists()


def has_float64(device: str) -> bool:
    """Return whether a kind of torch's devices computes in double precision: not Apple's GPUs."""
    return device != "mps"


def cores() -> int:
    """Return the CPUs that this process may use: those of its Slurm task, and of its affinity.

    Where Slurm confines nothing the affinity is the whole node's; where a job's shell was given
    more CPUs than its step, the affinity is the smaller one.
    """
    linux = hasattr(os, "sched_getaffinity")
    affinity = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    return max(1, min(number_in(os.environ, "SLURM_CPUS_PER_TASK", affinity), affinity))


def trial_resources(slots: int) -> list[dict[str, str]]:
    """Return the environment of each of so many trials that run at once.

    One trial alone gets everything and nothing is set. Threads are cores divided by trials, where
    ``OMP_NUM_THREADS`` does not say otherwise. With fewer GPUs than trials, several share one.
    """
    if slots == 1:
        return [{}]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // slots))
    devices = share_out(visible_gpus(), slots)
    environments = []
    for own, port in zip(devices, free_ports(slots), strict=True):
        environment = {"OMP_NUM_THREADS": threads, "MASTER_PORT": str(port)}
        if own:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        environments.append(environment)
    return environments


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    The driver is asked, not torch: to ask torch would start CUDA in a process that is forked.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def share_out(devices: Sequence[str], slots: int) -> list[list[str]]:
    """Return the devices of each slot: evenly, or shared where there are too few.

    >>> share_out(["0", "1"], 4)
    [['0'], ['1'], ['0'], ['1']]
    >>> share_out(["0", "1", "2", "3"], 2)
    [['0', '2'], ['1', '3']]
    """
    if not devices:
        return [[] for _ in range(slots)]
    if len(devices) < slots:
        return [[devices[slot % len(devices)]] for slot in range(slots)]
    return [list(devices[slot::slots]) for slot in range(slots)]


def free_ports(count: int) -> list[int]:
    """Return so many different ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
