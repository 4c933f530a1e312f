"""Prepared data are made once among many, and what is torn or stale is never read."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlmodeldev.data import cache, soundness, staging
from mlmodeldev.data.staging import staged
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.verify import hash_file

KEY = {"input": "ab", "max_length": 48}
made: list[Path] = []


def make(folder: Path) -> dict[str, int]:
    made.append(folder)
    np.save(folder / "numbers.npy", np.arange(1000))
    (folder / "inner").mkdir()
    (folder / "inner" / "text.txt").write_text("words")
    return {"count": 1000}


@pytest.fixture(autouse=True)
def _none_made():
    made.clear()


def get(tmp_path, key=KEY, maker=make):
    return cache.cached_arrays(tmp_path / "cache", "set", key, maker)


def test_it_is_made_once_and_mapped(tmp_path):
    for _ in range(2):
        cached = get(tmp_path)
        assert (cached.array("numbers") == np.arange(1000)).all()
        assert isinstance(cached.array("numbers"), np.memmap)
        assert cached.metadata == {"count": 1000}
    assert len(made) == 1
    with pytest.raises(ValueError, match="read-only"):
        cached.array("numbers")[0] = 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [cached.folder.name]


@pytest.mark.parametrize("key", [{**KEY, "max_length": 47}, {**KEY, "input": "ac"}, {}])
def test_another_key_is_another_folder(tmp_path, key):
    assert get(tmp_path).folder != get(tmp_path, key).folder
    assert len(made) == 2


def test_another_maker_is_another_folder(tmp_path):
    def other(folder):
        np.save(folder / "numbers.npy", np.zeros(3))

    assert get(tmp_path).folder != get(tmp_path, maker=other).folder


def cut(folder):
    os.truncate(folder / "numbers.npy", 100)


def lose(folder):
    (folder / "inner" / "text.txt").unlink()


def tear_marker(folder):
    os.truncate(folder / "prepared.json", 40)


def other_key(folder):
    file = folder / "prepared.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "key": {**content["key"], "input": "zz"}}))


def no_dict(folder):
    (folder / "prepared.json").write_text("[]")


def flip(folder):
    """Another byte at the same size, as a disk that loses a block leaves it."""
    with (folder / "numbers.npy").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\0" * 8)


@pytest.mark.parametrize("damage", [cut, lose, tear_marker, other_key, no_dict, flip])
def test_torn_or_stale_is_made_again(tmp_path, damage):
    damage(get(tmp_path).folder)
    cached = get(tmp_path)
    assert (cached.array("numbers") == np.arange(1000)).all()
    assert (cached.folder / "inner" / "text.txt").read_text() == "words"
    assert len(made) == 2


def test_it_is_read_once_a_node_to_see_that_it_is_sound(tmp_path, monkeypatch):
    """Notes lie in the node's memory: another process need not read, one after a restart does."""
    read = []

    def counted(path, algorithms):
        read.append(path.name)
        return hash_file(path, algorithms)

    monkeypatch.setattr(soundness, "hash_file", counted)
    notes = tmp_path / "memory"
    notes.mkdir()
    monkeypatch.setattr(soundness, "_MEMORY", notes)
    monkeypatch.setattr(soundness, "_sound", set())
    folder = get(tmp_path).folder
    assert read == [], "who has made it has just computed the digests"
    soundness._sound.clear()  # another process
    get(tmp_path)
    assert read == []
    shutil.rmtree(next(notes.iterdir()))  # the node has started anew
    soundness._sound.clear()
    get(tmp_path)
    get(tmp_path)
    assert sorted(read) == ["numbers.npy", "text.txt"]
    (folder / "numbers.npy").touch()
    get(tmp_path)
    assert len(read) == 4
    assert len(made) == 1


def test_of_more_than_can_be_read_each_time_the_headers_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(soundness, "LARGEST", 10)
    folder = get(tmp_path).folder
    flip(folder)
    get(tmp_path)
    assert len(made) == 1
    with (folder / "numbers.npy").open("r+b") as file:
        file.write(b"\0" * 128)
    get(tmp_path)
    assert len(made) == 2


@pytest.mark.parametrize("planted", ["link", "open to others"])
def test_notes_that_others_could_have_written_are_not_believed(tmp_path, monkeypatch, planted):
    monkeypatch.setattr(soundness, "_MEMORY", tmp_path)
    folder = tmp_path / f"mlmodeldev-{os.getuid()}-sound"
    if planted == "link":
        (tmp_path / "hers").mkdir()
        folder.symlink_to("hers")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert soundness._notes() is None


def test_a_maker_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        make(folder)
        raise UsageError("line 7 is wrong")

    with pytest.raises(UsageError, match="line 7"):
        get(tmp_path, maker=fail)
    assert list((tmp_path / "cache").rglob("*")) == []


def test_a_full_disk_is_one_error(tmp_path):
    def large(folder):
        np.save(folder / "numbers.npy", np.zeros(1_000_000))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(UsageError, match="disk or the quota is full"):
            get(tmp_path, maker=large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "cache").rglob("*")) == []


def test_a_large_array_takes_its_place_first(tmp_path, monkeypatch):
    array = cache.new_array(tmp_path / "a.npy", np.uint8, (1000, 1000))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1_000_000
    array[7] = 3
    del array
    assert np.load(tmp_path / "a.npy").sum() == 3000
    monkeypatch.setattr(cache, "free_bytes", lambda path: 999)
    with pytest.raises(UsageError, match=r"1 MB are needed, 999 B are free"):
        cache.new_array(tmp_path / "b.npy", np.uint8, (1000, 1000))
    assert not (tmp_path / "b.npy").exists()


def test_a_key_that_is_no_json_is_refused(tmp_path):
    with pytest.raises(UsageError, match="must be JSON"):
        get(tmp_path, {"path": tmp_path})


def test_what_may_only_be_read_is_used_and_what_lacks_goes_to_the_users_cache(
    tmp_path, monkeypatch
):
    shared = get(tmp_path).folder
    monkeypatch.setattr(cache, "_writable", lambda directory: False)
    assert get(tmp_path).folder == shared
    own = get(tmp_path, {"input": "new"})
    assert own.folder.parent == tmp_path / "user-cache" / "mlmodeldev" / "prepared"
    assert get(tmp_path, {"input": "new"}).folder == own.folder
    assert len(made) == 2


# --- many processes

PROCESS = """
import sys, time
from pathlib import Path
import numpy as np
from mlmodeldev.data.cache import cached_arrays

def make(folder):
    with open(sys.argv[1] + "/makers", "a") as file:
        file.write("one\\n")
    while not Path(sys.argv[1], "go").exists():
        time.sleep(0.01)
    np.save(folder / "numbers.npy", np.arange(10))

found = cached_arrays(Path(sys.argv[1], "cache"), "set", {"input": 1}, make)
assert found.array("numbers").sum() == 45
assert "torch" not in sys.modules
"""


@pytest.fixture
def start(tmp_path):
    running = []

    def call():
        command = [sys.executable, "-c", PROCESS, str(tmp_path)]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield call
    for process in running:
        process.kill()
        process.communicate()


def makers(tmp_path):
    file = tmp_path / "makers"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_one_of_many_processes_makes_it_and_a_killed_one_is_replaced(tmp_path, start):
    first = start()
    wait_for(lambda: makers(tmp_path) == 1)
    others = [start() for _ in range(4)]
    first.send_signal(signal.SIGKILL)
    wait_for(lambda: makers(tmp_path) == 2)
    (tmp_path / "go").touch()
    for process in others:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert makers(tmp_path) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1  # no lock, no left-overs


# --- the node's own disk


@pytest.fixture
def node():
    """A folder on another file system than the test's."""
    folder = Path("/dev/shm") / f"mlmodeldev-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def in_job(node, monkeypatch, tmp_path):
    assert node.stat().st_dev != tmp_path.stat().st_dev
    monkeypatch.setenv("SLURM_TMPDIR", str(node))


def test_auto_copies_to_the_jobs_folder_once(tmp_path, node, in_job, monkeypatch):
    source = get(tmp_path)
    local = staged(source, "auto")
    assert local.folder.is_relative_to(node)
    assert (local.array("numbers") == np.arange(1000)).all()
    assert (local.folder / "inner" / "text.txt").read_text() == "words"
    assert local.metadata == source.metadata
    monkeypatch.setattr(staging, "make_once", None)  # a second copy would fail
    assert staged(source, "auto").folder == local.folder


def test_a_torn_copy_is_made_again(tmp_path, in_job):
    source = get(tmp_path)
    cut(staged(source, "auto").folder)
    assert (staged(source, "auto").array("numbers") == np.arange(1000)).all()


def test_a_jobs_tmpdir_is_taken_only_inside_of_a_job(tmp_path, node, monkeypatch):
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("TMPDIR", str(node))
    source = get(tmp_path)
    assert staged(source, "auto") == source
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert staged(source, "auto").folder.is_relative_to(node)
    assert staged(source, "never") == source


def test_the_same_file_system_is_no_other_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    source = get(tmp_path)
    assert staged(source, "auto") == source
    assert staged(source, str(tmp_path / "local")).folder.parent == tmp_path / "local"


def test_damage_on_the_shared_disk_is_detected_while_copying(tmp_path, in_job, node):
    source = get(tmp_path)
    file = source.folder / "numbers.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # the same size
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"numbers\.npy: is damaged; remove .*set-"):
        staged(source, "auto")
    assert not list(node.rglob("*.npy"))


def test_too_little_room(tmp_path, in_job, node, monkeypatch):
    source = get(tmp_path)
    monkeypatch.setattr(staging, "free_bytes", lambda path: 50_000_000)
    assert staged(source, "auto") == source
    with pytest.raises(UsageError, match=r"processing\.stage=.*50 MB free"):
        staged(source, str(node / "there"))


def test_a_folder_that_cannot_be_made(tmp_path):
    source = get(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="a part of the path is a file"):
        staged(source, str(tmp_path / "file" / "local"))


def test_another_users_folder_is_left_alone(tmp_path, in_job, node, monkeypatch):
    source = get(tmp_path)
    (node / f"mlmodeldev-{os.getuid()}").mkdir()
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", iter([me, me + 1]).__next__)  # its name, then its owner
    assert staged(source, "auto") == source
