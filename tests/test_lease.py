"""Owners, watches and locks, on file systems with flock and without."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import Timeout

from mlmodeldev import lease
from mlmodeldev.lease import ProcessLock, Watch, new_owner, owned, owner_record
from mlmodeldev.trial.folder import TrialFolder

ROOT = Path(__file__).resolve().parents[1]

HOLDER = """
import errno, fcntl, sys, time
from pathlib import Path
from mlmodeldev.lease import ProcessLock

def flock(descriptor, operation):
    raise OSError(errno.ENOLCK, "no locks available")

if sys.argv[2] == "no flock":
    fcntl.flock = flock
lock = ProcessLock(Path(sys.argv[1]), timeout=0)
lock.acquire()
print("locked", flush=True)
sys.stdin.read()
lock.release()
"""


def hold(path: Path, how: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


@pytest.fixture(params=["flock", "no flock"])
def how(request, monkeypatch):
    if request.param == "no flock":
        break_flock(monkeypatch, errno.ENOLCK)
    return request.param


def break_flock(monkeypatch, number: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_one_process_has_the_lock_until_it_gives_it_back_or_dies(tmp_path, how):
    path = tmp_path / "lock"
    for end in ("gives back", "dies"):
        holder = hold(path, how)
        with pytest.raises(Timeout):
            ProcessLock(path, timeout=0).acquire()
        if end == "dies":
            holder.kill()
            holder.wait(30)
        else:
            holder.communicate(timeout=30)
        with ProcessLock(path, timeout=5):
            pass


def test_who_has_the_lock_may_take_it_again(tmp_path, how):
    lock = ProcessLock(tmp_path / "lock", timeout=0)
    with lock:
        with lock:
            assert lock.is_locked
        assert lock.is_locked
        with pytest.raises(Timeout):
            ProcessLock(tmp_path / "lock", timeout=0).acquire()
    assert not lock.is_locked


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOTSUP]
)
def test_a_trial_needs_no_flock(tmp_path, monkeypatch, number):
    break_flock(monkeypatch, number)
    (tmp_path / "trial" / "checkpoints").mkdir(parents=True)
    folder = TrialFolder(tmp_path / "trial")
    folder.claim()
    folder.heartbeat()
    folder.finish("done")
    assert folder.read()["state"] == "done"
    assert not list(folder.path.glob(".record.lock.soft*"))


def test_the_lock_file_of_a_dead_node_is_broken_after_silence(tmp_path, monkeypatch):
    """Also by a command that waits for no living holder (``timeout=0``)."""
    break_flock(monkeypatch, errno.ENOLCK)
    monkeypatch.setattr(lease, "_LOCK_LEASE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "_LOCK_HEARTBEAT_SECONDS", 0.2)
    path = tmp_path / "lock"
    holder = hold(path, "no flock")
    holder.kill()
    holder.wait(30)
    soft = path.with_name("lock.soft")
    text = soft.read_text().replace(os.uname().nodename, "another-node").replace("30.0", "1.0")
    assert "another-node" in text
    soft.write_text(text)
    with pytest.raises(Timeout):
        ProcessLock(path, timeout=0).acquire()  # it may be alive: it was written just now
    os.utime(soft, (time.time() - 5, time.time() - 5))
    with ProcessLock(path, timeout=0):
        pass


def test_other_errors_of_a_lock_are_not_hidden(tmp_path, monkeypatch):
    break_flock(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        ProcessLock(tmp_path / "lock", timeout=0).acquire()


def test_owners_differ_and_this_process_is_no_other():
    first, second = new_owner(), new_owner()
    assert first.pop("token") != second.pop("token")
    assert first == second
    record = owner_record()
    assert not owned(record), "this very process"
    record["owner"]["pid"], record["owner"]["started"] = (
        os.getppid(),
        lease.start_ticks(os.getppid()),
    )
    assert owned(record)
    assert not owned({**record, "state": "interrupted"})


def test_silence_is_timed_from_the_last_change(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = Watch()
    for seconds, lease_until, alive in (
        (0, 1, None),  # not watched for long enough
        (80, 1, None),
        (50, 2, True),  # it beats
        (80, 2, True),
        (80, 2, True),
        (20, 2, False),  # silent for the whole lease
        (1, 3, True),  # it was only suspended
        (1, 2, None),  # ended by another, or a clock set back: watched anew
        (90, 2, None),
        (90, 2, False),
        (1, 3, True),
        (91, 3, None),  # nobody looked for long: it may have been kept from writing, too
        (90, 3, None),
        (90, 3, False),
    ):
        now[0] += seconds
        assert watch.is_alive(lease_until) is alive, (seconds, lease_until)


def test_the_records_of_one_owner_are_watched_each_by_itself(monkeypatch):
    """An agent's notes; of an older version also a pool's trials, which have no tokens."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.2)
    owner = {"host": "node17", "pid": 1, "started": 5}
    notes = [
        {"state": "running", "owner": owner, "run": run, "lease": time.time() + run}
        for run in (1, 2)
    ]
    assert all(owned(note) for _ in range(3) for note in notes)
    deadline = time.monotonic() + 30
    while True in [owned(note) for note in notes]:  # both are looked at each time
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def as_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """No /proc; ps(1), which is everywhere."""
    monkeypatch.setattr(lease, "has_proc", lambda: False)
    monkeypatch.setattr(lease, "pid_namespace", lambda: None)
    monkeypatch.setattr(lease, "boot_id", lambda: None)


def test_without_proc_a_killed_process_is_seen_at_once(as_on_macos: None) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        started = lease.start_ticks(process.pid)
        assert started is not None
        assert abs(started - time.time()) < 60
        owner = {**new_owner(), "pid": process.pid, "started": started}
        record = owner_record(owner)
        assert owned(record)
        assert not owned({**record, "owner": {**owner, "started": started - 5}}), "another's id"
        assert not lease.is_zombie(process.pid)
        process.kill()
        deadline = time.monotonic() + 30
        while not lease.is_zombie(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not owned(record)
    assert lease.start_ticks(process.pid) is None
    assert not lease.is_zombie(process.pid)


def test_without_proc_the_lease_decides(monkeypatch):
    monkeypatch.setattr(lease, "pid_namespace", lambda: None)
    monkeypatch.setattr(lease, "start_ticks", lambda pid: None)
    record = owner_record()
    assert owned(record)
    assert not owned({**record, "lease": 0})
