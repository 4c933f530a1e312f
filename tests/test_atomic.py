"""Files and folders appear whole or not at all, whatever happens to their writer."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev import atomic
from mlmodeldev.atomic import (
    atomic_path,
    atomic_write,
    recover_folder,
    remove_at_once,
    remove_leftovers,
    replace_folder,
    write_json,
    write_shared,
    write_text,
    writing_to,
)
from mlmodeldev.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]

WRITER = """
import sys
from pathlib import Path
from mlmodeldev.atomic import atomic_write, replace_folder
kind, path = sys.argv[1], Path(sys.argv[2])
with (atomic_write(path, "w") if kind == "file" else replace_folder(path)) as target:
    file = target if kind == "file" else (target / "part").open("w")
    file.write("half of what is new")
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
"""


def kill_writer(kind: str, path: Path) -> None:
    """Start to write, and die by SIGKILL half-way."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.kill()
    assert writer.wait(30) == -signal.SIGKILL


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_keeps_its_old_content_when_its_writer_is_killed(tmp_path):
    path = tmp_path / "trial.json"
    write_text(path, "old")
    kill_writer("file", path)
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2  # and what the dead one left
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"trial.json"}


def test_a_first_file_is_not_there_at_all_when_its_writer_is_killed(tmp_path):
    kill_writer("file", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_keeps_its_old_content_when_its_writer_is_killed(tmp_path):
    path = tmp_path / "best"
    with replace_folder(path) as folder:
        (folder / "old").write_text("old")
    kill_writer("folder", path)
    assert names(path) == {"old"}
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"best"}


def test_a_file_is_seen_only_when_it_is_complete(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == {"file"}


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_write(path, "w") as file:
        file.write("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file"}


def test_text_is_utf8_in_any_locale_and_json_keeps_order(tmp_path):
    write_text(tmp_path / "text", "日本 é\n")
    assert (tmp_path / "text").read_bytes() == "日本 é\n".encode()
    write_json(tmp_path / "json", {"z": 1, "a": Path("/x"), "f": 0.1 + 0.2})
    text = (tmp_path / "json").read_text()
    assert list(json.loads(text)) == ["z", "a", "f"]
    assert json.loads(text) == {"z": 1, "a": "/x", "f": 0.30000000000000004}


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "best"
    with replace_folder(path) as folder:
        (folder / "old").mkdir()
        (folder / "old" / "file").write_text("old")
        assert not path.exists()
    with replace_folder(path) as folder:
        assert names(folder) == set()
        (folder / "new").write_text("new")
        assert names(path) == {"old"}
    assert names(path) == {"new"}
    assert names(path.parent) == {"best"}


def test_a_failing_writer_leaves_the_old_folder_and_no_other(tmp_path):
    path = tmp_path / "best"
    with replace_folder(path) as folder:
        (folder / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), replace_folder(path) as folder:
        (folder / "new").write_text("new")
        raise ZeroDivisionError
    assert names(path) == {"old"}
    assert names(tmp_path) == {"best"}


def test_a_removal_that_is_killed_leaves_no_half_under_the_name(tmp_path, monkeypatch):
    folder = tmp_path / "code"
    (folder / "inner").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(atomic.shutil, "rmtree", lambda path: (path / "inner").rmdir())
        remove_at_once(folder)  # as far as a kill lets it
    assert not folder.exists()
    (leftover,) = tmp_path.iterdir()
    assert atomic.is_leftover(leftover.name)
    remove_at_once(leftover)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_removed_and_everything_else_is_left(tmp_path):
    for name in (".a.host-1.tmp", "a.tmp", ".hidden", "trial.json"):
        (tmp_path / name).write_text("")
    (tmp_path / ".b.old.tmp").mkdir()
    (tmp_path / ".b.old.tmp" / "file").write_text("")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"a.tmp", ".hidden", "trial.json"}


# --- places that can't be written


def test_a_full_disk_is_reported_in_one_line_and_the_old_file_stays(tmp_path):
    path = tmp_path / "trial.json"
    write_text(path, "old")
    full = os.open("/dev/full", os.O_WRONLY)
    with (
        pytest.raises(UsageError, match="no space left on the device") as error,
        atomic_write(path) as file,
    ):
        os.dup2(full, file.fileno())  # from here on every write meets a full disk
        file.write(b"x" * 100_000)
    os.close(full)
    assert str(error.value).startswith(f"{path}: ")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"trial.json"}


def test_a_file_size_limit_is_reported_in_one_line_and_the_old_file_stays(tmp_path):
    path = tmp_path / "trial.json"
    write_text(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(UsageError, match="file-size limit"):
            write_text(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert names(tmp_path) == {"trial.json"}


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        write_text(tmp_path / "file" / "x", "")
    with (
        pytest.raises(UsageError, match="is a file, not a folder"),
        replace_folder(tmp_path / "file" / "best"),
    ):
        pass


def test_a_place_without_permission():
    with pytest.raises(UsageError, match=r"/sys/file: .*(permission|read-only)"):
        write_text(Path("/sys/file"), "")


def test_an_error_that_says_nothing_of_the_place_is_no_bad_input(tmp_path):
    with pytest.raises(ConnectionResetError), writing_to(tmp_path):
        raise ConnectionResetError(104, "reset by peer")


# --- folders whose exchange or whose disk is cut short


def fill(path: Path, name: str) -> None:
    with replace_folder(path) as folder:
        (folder / name).write_text(name)


@pytest.fixture(params=["renameat2", "two renames"])
def exchange(request, monkeypatch):
    """Both ways: where folders can be exchanged at once, and where they can't (NFS, Lustre)."""
    if request.param != "renameat2":
        monkeypatch.setattr(atomic, "_exchange", lambda new, path: False)
    return request.param


def test_a_folder_is_exchanged_either_way(tmp_path, exchange):
    for name in ("one", "two", "three"):
        fill(tmp_path / "best", name)
        assert names(tmp_path / "best") == {name}
        assert names(tmp_path) == {"best"}


def test_a_reader_finds_a_whole_folder_at_any_moment(tmp_path, exchange):
    """A process that looks all the time, while another replaces the folder again and again."""
    path = tmp_path / "best"
    fill(path, "file")
    looks = 1 if exchange == "renameat2" else 5  # between two renames it is looked for again
    reader = f"""
import sys, time
from pathlib import Path
from mlmodeldev.atomic import recover_folder
path, looks, missed = Path(sys.argv[1]), 0, 0
print("looks", flush=True)
end = time.monotonic() + 20
while not (path.parent / "stop").exists() and time.monotonic() < end:
    looks += 1
    for _ in range({looks}):
        if path.is_dir() or {looks} > 1 and recover_folder(path):
            break
    else:
        missed += 1
print(looks, missed)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", reader, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "looks\n"
    for _ in range(100):
        fill(path, "file")
    (tmp_path / "stop").touch()
    looks, missed = map(int, process.communicate(timeout=30)[0].split())
    assert looks > 10
    assert missed == 0


@pytest.mark.parametrize("survivor", ["reader", "writer", "owner"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_kill_between_the_renames_never_loses_both_copies(tmp_path, monkeypatch, step, survivor):
    path = tmp_path / "best"
    fill(path, "old")
    monkeypatch.setattr(atomic, "_exchange", lambda new, path: False)
    process = os.fork()
    if not process:  # dies just before the so-many-th rename
        calls = []

        def rename(self, target, real=Path.rename):
            calls.append(target)
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, target)

        Path.rename = rename  # type: ignore[method-assign,assignment]
        fill(path, "new")
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    if survivor == "reader":
        assert recover_folder(path) == (step == 3)
        assert names(path) == ({"new"} if step == 3 else {"old"})
        assert not recover_folder(path)
    elif survivor == "owner":
        remove_leftovers(tmp_path)
        assert names(path) == ({"new"} if step == 3 else {"old"})
        assert names(tmp_path) == {"best"}
    else:
        fill(path, "newer")
        assert names(path) == {"newer"}
        remove_leftovers(tmp_path)
        assert names(tmp_path) == {"best"}


def test_what_was_there_before_comes_back_if_only_that_is_left(tmp_path):
    (tmp_path / ".best.previous").mkdir()
    (tmp_path / ".best.previous" / "old").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path / "best") == {"old"}
    assert names(tmp_path) == {"best"}


def test_each_file_of_a_folder_is_on_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "best", []
    fill(path, "old")
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, (path / "old").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with replace_folder(path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
        (folder / "link").symlink_to("nowhere")
    for place in (path, path / "deep", path / "deep" / "file"):
        assert (place.stat().st_ino, True) in synced, f"{place} was not synced before the rename"
    assert (tmp_path.stat().st_ino, False) in synced, "nor the rename after it"


def test_a_link_that_was_planted_is_not_followed(tmp_path, monkeypatch):
    """Temporary names can't be guessed; if one were, its link would not be written through."""
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / "victim").write_text("precious")
    temporary = f".file.{bytes(8).hex()}.tmp"
    (tmp_path / temporary).symlink_to("victim")
    with pytest.raises(UsageError):
        write_text(tmp_path / "file", "evil")
    assert (tmp_path / "victim").read_text() == "precious"


def test_temporary_names_differ_each_time(tmp_path):
    seen = set()
    for _ in range(3):
        with atomic_path(tmp_path / "table.csv") as temporary:
            assert temporary.suffix == ".csv"
            seen.add(temporary.name)
            temporary.write_text("x")
    assert len(seen) == 3
    assert names(tmp_path) == {"table.csv"}


def test_what_a_killed_library_wrote_by_name_is_cleared_away(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "table.csv") as temporary:
        raise ZeroDivisionError
    temporary.write_text("half")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == set()


def test_a_shared_file_has_its_folders_permissions_whatever_the_umask(tmp_path):
    tmp_path.chmod(0o2770)
    before = os.umask(0o077)
    try:
        write_shared(tmp_path / "shared", b"x")
        write_text(tmp_path / "own", "x")
        with atomic_write(tmp_path / "too", shared=True) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"shared": 0o660, "own": 0o600, "too": 0o660}


def test_a_folder_that_can_not_be_synced_is_no_error(tmp_path, monkeypatch):
    import errno

    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no fsync of folders here")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "file", "x")
    fill(tmp_path / "best", "x")
    assert names(tmp_path) == {"file", "best"}
