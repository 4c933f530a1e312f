"""Many processes, killed and suspended ones: one download, resumed at the byte where it was."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlmodeldev.data import FetchError
from mlmodeldev.fetch import lock, partial
from tests.fetch.fault_server import Answer

FETCH = """
import sys
from mlmodeldev.data import Source, fetch
url, size, digest, folder = sys.argv[1:]
source = Source(urls=[url], bytes=int(size), sha256=digest, name="f.bin")
fetch(source, folder, progress=False, backoff=0.01)
"""
HOLD = 1_000_000


@pytest.fixture
def start(server, body, tmp_path):
    """Start a process that fetches; every one is ended with the test."""
    started = []

    def call(name="a"):
        digest = hashlib.sha256(body).hexdigest()
        arguments = [server.url(name), str(len(body)), digest, str(tmp_path / "data")]
        process = subprocess.Popen([sys.executable, "-c", FETCH, *arguments], stderr=-1, text=True)
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def staged(tmp_path):
    """Bytes in the unfinished files."""
    return sum(path.stat().st_size for path in tmp_path.glob("data/.fetch/f.bin.*/data"))


def finish(process):
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_ten_processes_make_one_request(server, body, start, tmp_path):
    server.add("a", body, [Answer(hold_after=HOLD)])
    processes = [start() for _ in range(10)]
    assert server.paused.acquire(timeout=30)
    server.release.set()
    for process in processes:
        finish(process)
    assert server.ranges() == [None]
    assert (tmp_path / "data/f.bin").read_bytes() == body
    assert sorted(p.name for p in (tmp_path / "data/.fetch").iterdir()) == ["f.bin.json"]


def test_killed_and_resumed_at_the_byte(server, body, start, tmp_path, get):
    server.add("a", body, [Answer(hold_after=HOLD)])
    process = start()
    wait_for(lambda: staged(tmp_path) == HOLD)
    process.kill()
    process.wait()
    assert not (tmp_path / "data/f.bin").exists()
    before = time.monotonic()
    assert get("a").read_bytes() == body
    assert time.monotonic() - before < 5  # no lease is waited for: the owner is seen to be dead
    assert server.ranges() == [None, f"bytes={HOLD}-"]
    assert sorted(p.name for p in (tmp_path / "data/.fetch").iterdir()) == ["f.bin.json"]


def test_three_processes_and_the_first_is_killed(server, body, start, tmp_path):
    server.add("a", body, [Answer(hold_after=HOLD)])
    first = start()
    wait_for(lambda: staged(tmp_path) == HOLD)
    others = [start(), start()]
    first.kill()  # and not waited for: it stays a zombie, as under a careless launcher
    for process in others:
        finish(process)
    assert server.ranges() == [None, f"bytes={HOLD}-"]
    assert (tmp_path / "data/f.bin").read_bytes() == body


def test_interrupted_by_the_keyboard_and_resumed(server, body, start, tmp_path, get):
    server.add("a", body, [Answer(hold_after=HOLD)])
    process = start()
    wait_for(lambda: staged(tmp_path) == HOLD)
    process.send_signal(signal.SIGINT)
    process.wait()
    assert not (tmp_path / "data/.fetch/f.bin.lock").exists()
    get("a")
    assert server.ranges() == [None, f"bytes={HOLD}-"]


def test_another_nodes_silence_is_waited_out(server, body, start, tmp_path, get, monkeypatch):
    """A node that lost its power: its claim names another host, and nobody renews it."""
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(lock, "_FIRST_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(lock, "_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.1)
    server.add("a", body, [Answer(hold_after=HOLD)])
    process = start()
    wait_for(lambda: staged(tmp_path) == HOLD)
    process.kill()
    process.wait()
    marker = tmp_path / "data/.fetch/f.bin.lock"
    here = os.uname().nodename
    text = marker.read_text().replace(here, "another-node").replace("60.0", "0.5")
    assert "another-node" in text
    marker.write_text(text)
    before = time.monotonic()
    assert get("a").read_bytes() == body
    assert time.monotonic() - before > 0.5
    assert server.ranges() == [None, f"bytes={HOLD}-"]


def test_a_suspended_worker_wakes_up_and_harms_nothing(server, body, start, tmp_path, get):
    """Its claim is taken over; it still holds its bytes, so the successor starts its own."""
    server.add("a", body, [Answer(hold_after=HOLD)])
    sleeper = start()
    wait_for(lambda: staged(tmp_path) == HOLD)
    sleeper.send_signal(signal.SIGSTOP)
    (tmp_path / "data/.fetch/f.bin.lock").unlink()  # as after an expired lease
    assert get("a").read_bytes() == body
    inode = (tmp_path / "data/f.bin").stat().st_ino
    assert server.ranges() == [None, None]
    server.release.set()
    sleeper.send_signal(signal.SIGCONT)
    finish(sleeper)
    assert (tmp_path / "data/f.bin").stat().st_ino == inode
    assert (tmp_path / "data/f.bin").read_bytes() == body


def test_bytes_left_of_another_version_are_not_used(server, body, tmp_path, get, monkeypatch):
    monkeypatch.setattr(partial, "KEEP_BYTES", 0)
    server.add("a", body, [Answer(cut_after=HOLD)])
    with pytest.raises(FetchError):
        get("a", retries=0)
    other = bytes(reversed(body))
    server.add("a", other)
    fields = {"sha256": hashlib.sha256(other).hexdigest()}
    assert get("a", fields=fields).read_bytes() == other
    assert server.ranges() == [None, None]


def test_a_torn_state_starts_again(server, body, tmp_path, get, monkeypatch):
    monkeypatch.setattr(partial, "KEEP_BYTES", 0)
    server.add("a", body, [Answer(cut_after=HOLD)])
    with pytest.raises(FetchError):
        get("a", retries=0)
    [state] = tmp_path.glob("data/.fetch/f.bin.*/state.json")
    state.write_text(state.read_text()[:-5])
    assert get("a").read_bytes() == body
    assert server.ranges() == [None, None]


def test_damaged_bytes_left_behind_are_detected(server, body, tmp_path, get, monkeypatch):
    monkeypatch.setattr(partial, "KEEP_BYTES", 0)
    server.add("a", body, [Answer(cut_after=HOLD)])
    with pytest.raises(FetchError):
        get("a", retries=0)
    [data] = tmp_path.glob("data/.fetch/f.bin.*/data")
    data.write_bytes(bytes(HOLD))
    assert get("a").read_bytes() == body
    assert server.ranges() == [None, f"bytes={HOLD}-", None]


def test_waiting_is_reported_and_has_a_deadline(
    server, body, start, tmp_path, get, caplog, monkeypatch
):
    from mlmodeldev.fetch import progress

    caplog.set_level("INFO")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.1)
    server.add("a", body, [Answer(hold_after=HOLD)])
    start()
    wait_for(lambda: staged(tmp_path) == HOLD)
    with pytest.raises(FetchError, match="another process did not fetch it in time"):
        get("a", deadline=0.5)
    assert "another process fetches it (1 MB so far)" in caplog.text
    assert len(server.requests) == 1


def test_who_waits_gets_the_error_of_who_tried(server, body, start, tmp_path):
    """On a sealed node each of a hundred tasks would else try for minutes, one after another."""
    server.add("a", bytes(len(body)), [Answer(hold_after=HOLD)])
    first = start()
    assert server.paused.acquire(timeout=30)
    other = start()
    wait_for((tmp_path / "data/.fetch/f.bin.waiting").exists)
    server.release.set()
    for process in (first, other):
        assert "has the sha256" in process.communicate(timeout=30)[1]
    assert server.ranges() == [None]
    assert not (tmp_path / "data/f.bin").exists()


def test_an_old_failure_does_not_count(server, body, get, tmp_path):
    server.add("a", body)
    (tmp_path / "data/.fetch").mkdir(parents=True)
    (tmp_path / "data/.fetch/f.bin.failed").write_text("yesterday")
    assert get("a").read_bytes() == body
    assert sorted(p.name for p in (tmp_path / "data/.fetch").iterdir()) == ["f.bin.json"]


def test_a_door_left_behind_delays_and_does_no_harm(server, body, get, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_DOOR_SECONDS", 0.1)
    server.add("a", body)
    (tmp_path / "data/.fetch").mkdir(parents=True)
    (tmp_path / "data/.fetch/f.bin.lock.door").touch()
    assert get("a").read_bytes() == body
    assert sorted(p.name for p in (tmp_path / "data/.fetch").iterdir()) == ["f.bin.json"]


def test_killed_while_several_parts_arrived(server, body, tmp_path, get, monkeypatch):
    """The parts of the killed process are of pySmartDL itself; only their gaps are asked for."""
    from mlmodeldev.fetch import parallel

    size, folder = len(body), tmp_path / "data/.fetch/f.bin.0123456789abcdef"
    monkeypatch.setattr(parallel, "_MIN_PART", 100_000)
    digest = hashlib.sha256(body).hexdigest()
    folder.mkdir(parents=True)
    state = {"of": ["f.bin", size, digest, None], "url": "x", "validator": "", "encoded": False}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "data").write_bytes(b"")
    (folder / "parts.count").write_text("3")
    third = -(-size // 3)  # each range after the first starts one byte later than a plain third
    (folder / "parts.000").write_bytes(body[:400_000])
    (folder / "parts.001").write_bytes(body[third + 1 : 2 * third + 2])
    (folder / "parts.002").write_bytes(body[2 * third + 2 :][:5000])
    server.add("a", body)
    assert get("a").read_bytes() == body
    assert server.ranges() == [f"bytes=400000-{third}", f"bytes={2 * third + 2 + 5000}-"]


def test_killed_with_parts_and_resumed(server, body, tmp_path, get):
    """What parts brought before kill -9 is used, and only the gaps are asked for."""
    server.add("a", body)
    folder = tmp_path / "data/.fetch/f.bin.0123456789abcdef"
    folder.mkdir(parents=True)
    digest = hashlib.sha256(body).hexdigest()
    state = {
        "of": ["f.bin", len(body), digest, None],
        "url": "x",
        "validator": "",
        "encoded": False,
    }
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "data").write_bytes(body[:1000])
    (folder / "parts.count").write_text("2")  # two megabytes at least for a part: one range
    (folder / "parts.000").write_bytes(body[:500_000])
    assert get("a").read_bytes() == body
    assert server.ranges() == ["bytes=1000-"]


def test_lock_of_another_user_expires(tmp_path, monkeypatch):
    """filelock refuses to touch a file that it can't write; root can write all, so it is told."""
    import filelock

    path = tmp_path / "x.lock"
    path.write_text("of another user")
    real = filelock.SoftFileLease.acquire

    def acquire(self, **options):
        if path.exists():
            raise PermissionError(13, "Permission denied", str(path))
        return real(self, **options)

    monkeypatch.setattr(filelock.SoftFileLease, "acquire", acquire)
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(lock, "_FIRST_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(lock, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    waits = []
    with lock.one_worker(path, lambda: False, waits.append) as claim:
        claim.check()
    assert waits[-1] >= 0.15
    assert not Path(path).exists()


def test_claim_that_was_taken_over_is_noticed(tmp_path):
    path = tmp_path / "x.lock"
    with lock.one_worker(path, lambda: False, lambda waited: None) as claim:
        path.unlink()
        path.write_text("another")
        with pytest.raises(lock.ClaimLost):
            claim.check()
    assert path.read_text() == "another"


def test_a_wait_for_another_worker_may_be_given_up(tmp_path, monkeypatch):
    """As a trial does upon a signal, which only sets a flag."""
    from mlmodeldev.fetch import lock

    class GivenUp(Exception):
        pass

    def end() -> None:
        raise GivenUp

    with lock.one_worker(tmp_path / "lock", lambda: False, lambda _: None):
        monkeypatch.setattr(lock, "on_wait", [end])
        second = lock.one_worker(tmp_path / "lock", lambda: False, lambda _: None)
        with pytest.raises(GivenUp), second:
            pass
