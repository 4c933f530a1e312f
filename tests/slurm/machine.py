"""What several test clusters on one machine share: ports, /etc/hosts, and the dead's leftovers.

Every process of a cluster carries the cluster's folder in its environment, so a cluster can be
ended by anyone, even after its owner was killed.

Example::

    with machine_lock():
        ports = free_ports(8)
        name_hosts(folder, ["n1", "n2"])
    ...
    kill_processes(folder)
    unname_hosts(folder)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PREFIX = "mlmodeldev-slurm-"
MARK = "MLMODELDEV_TEST_CLUSTER"
"""Variable in the environment of every daemon: the cluster's folder."""
_HOSTS = Path("/etc/hosts")


def wait_for(condition: Callable[[], object], seconds: float, what: str = "") -> None:
    """Poll until a condition holds.

    Raises:
        TimeoutError: it doesn't within these seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"gave up after {seconds} s waiting for {what or condition}")
        time.sleep(0.1)


@contextlib.contextmanager
def machine_lock() -> Iterator[None]:
    """Let one cluster at a time take ports or change /etc/hosts."""
    with Path(tempfile.gettempdir(), f"{PREFIX}lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens, below those that the kernel hands out itself."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(15000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports += [port] if port not in ports else []
    return ports


def listening(port: int) -> bool:
    """Whether somebody answers on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- names of nodes: Lightning, torch and Slurm look them up


def name_hosts(folder: Path, names: Sequence[str]) -> None:
    """Add a line for this cluster; others' lines may name the same hosts, to the same address."""
    with _HOSTS.open("a") as file:
        file.write(f"127.0.0.1 {' '.join(names)} # {folder.name}\n")


def unname_hosts(folder: Path) -> None:
    """Remove this cluster's line."""
    lines = _HOSTS.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.rstrip().endswith(f"# {folder.name}")]
    if kept == lines:
        return
    new = _HOSTS.with_name(f"hosts.{os.getpid()}")
    new.write_text("".join(kept))
    new.chmod(0o644)
    try:
        new.replace(_HOSTS)
    except OSError:  # a bind mount, in containers: not to be replaced, only rewritten
        _HOSTS.write_text("".join(kept))
        new.unlink()


# --- processes


def processes(folder: Path) -> list[int]:
    """Return the daemons of a cluster and what its jobs have started."""
    mark = f"{MARK}={folder}".encode()
    conf = f"SLURM_CONF={folder}/etc/slurm.conf".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            in_job = conf in variables and any(v.startswith(b"SLURM_JOB_ID=") for v in variables)
            if (mark in variables or in_job) and start_ticks(int(entry.name)) is not None:
                pids.append(int(entry.name))
    return pids


def kill_processes(folder: Path, seconds: float = 3) -> None:
    """End a cluster's processes: SIGTERM, then SIGKILL."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10)):
        for pid in processes(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: not processes(folder), patience)
            return
    raise TimeoutError(f"{folder}: processes {processes(folder)} outlive SIGKILL")


def start_ticks(pid: int) -> int | None:
    """Start time of a live process (proc(5)); with its id it names a process for good."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


# --- owners


def own(folder: Path) -> None:
    """Note that the cluster belongs to this process and ends with it."""
    owner = {"pid": os.getpid(), "started": start_ticks(os.getpid())}
    (folder / "owner.json").write_text(json.dumps(owner))


def end_orphans() -> None:
    """End the clusters whose owners were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/"):
        try:
            owner = json.loads((folder / "owner.json").read_text())
        except (OSError, ValueError):
            continue  # of a developer: it stays until make slurm-down
        if start_ticks(owner["pid"]) != owner["started"]:
            remove(folder)


def remove(folder: Path) -> None:
    """End a cluster in any state; nothing of it stays."""
    kill_processes(folder)
    with machine_lock():
        unname_hosts(folder)
    shutil.rmtree(folder, ignore_errors=True)
