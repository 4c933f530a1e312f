"""Archives come out whole or not at all, and nothing leaves the folder."""

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmodeldev.data import Source, fetch, unpack
from mlmodeldev.fetch import archive
from mlmodeldev.fetch.archive import ArchiveError, Limits
from mlmodeldev.fetch.unpacking import MARKER

FILES = {"top/a.txt": b"alpha", "top/sub/b.bin": bytes(range(256)) * 50, "top/empty": b""}


def make_zip(path, files, **info):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1999, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            for key, value in info.items():
                setattr(entry, key, value)
            file.writestr(entry, content)
    return path


def make_tar(path, files, kind="w", **info):
    with tarfile.open(path, kind) as file:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), 915148800
            for key, value in info.items():
                setattr(entry, key, value)
            file.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return path


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARKER
    }


def everything(tmp_path):
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))


KINDS = {"zip": None, "tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_out_whole(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    made = make_zip(path, FILES) if kind == "zip" else make_tar(path, FILES, KINDS[kind])
    folder = unpack(made, tmp_path / "out")
    assert tree(folder) == FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", f"x.{kind}"]


def test_the_same_as_other_tools(tmp_path):
    """GNU tar writes it, ``diff`` compares it."""
    origin = tmp_path / "origin"
    for name, content in FILES.items():
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_bytes(content)
    long = origin / ("d" * 90) / ("e" * 90)
    long.mkdir(parents=True)
    (long / ("f" * 120)).write_text("long names take extra headers")
    subprocess.run(["tar", "-czf", tmp_path / "x.tgz", "-C", origin, "."], check=True)
    folder = unpack(tmp_path / "x.tgz", tmp_path / "out")
    (folder / MARKER).unlink()
    subprocess.run(["diff", "-r", origin, folder], check=True)


def test_zstandard_without_a_reader_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "x.tar.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for package in ("zstandard", "compression"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ArchiveError, match="pip install zstandard"):
        unpack(path, tmp_path / "out")
    assert everything(tmp_path) == ["x.tar.zst"]


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here (apt-get install zstd)")
def test_zstandard_by_the_program(tmp_path):
    plain = make_tar(tmp_path / "x.tar", FILES)
    subprocess.run(["zstd", "-q", plain], check=True)
    packed = tmp_path / "x.tar.zst"
    assert tree(unpack(packed, tmp_path / "out")) == FILES
    content = packed.read_bytes()
    for number, damaged in enumerate((content[:-20], content[:60], content[:40] + b"xyz")):
        packed.write_bytes(damaged)
        with pytest.raises(ArchiveError, match=r"broken or cut short|not an archive"):
            unpack(packed, tmp_path / f"out{number}")
        assert not (tmp_path / f"out{number}").exists()


BAD_NAMES = ["../out.txt", "/abs.txt", "a/../../b", "C:/x", "a\\..\\b", "ok/../../../etc/x"]


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_paths_that_leave_are_refused(tmp_path, make, name):
    made = make(tmp_path / "x", {"good": b"1", name: b"2"})
    with pytest.raises(ArchiveError, match="would leave the folder"):
        unpack(made, tmp_path / "in" / "out")
    assert everything(tmp_path) == ["in", "x"]


LINKS = {
    "symlink": {"type": tarfile.SYMTYPE, "linkname": "/etc"},
    "symlink inside": {"type": tarfile.SYMTYPE, "linkname": "good"},
    "hard link": {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
    "device": {"type": tarfile.CHRTYPE},
    "fifo": {"type": tarfile.FIFOTYPE},
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_and_devices_in_tars_are_refused(tmp_path, kind):
    made = make_tar(tmp_path / "x", {"l": b""}, **LINKS[kind])
    with pytest.raises(ArchiveError, match="link or a device"):
        unpack(made, tmp_path / "out")
    assert everything(tmp_path) == ["x"]


def test_links_in_zips_are_refused(tmp_path):
    made = make_zip(tmp_path / "x", {"l": b"/etc"}, external_attr=(stat.S_IFLNK | 0o777) << 16)
    with pytest.raises(ArchiveError, match="link or a device"):
        unpack(made, tmp_path / "out")


def test_a_link_and_a_file_through_it(tmp_path):
    """The classic: a link out, then a member below it."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        link = tarfile.TarInfo("sub")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "victim")
        file.addfile(link)
        entry = tarfile.TarInfo("sub/evil")
        entry.size = 4
        file.addfile(entry, io.BytesIO(b"evil"))
    (tmp_path / "victim").mkdir()
    with pytest.raises(ArchiveError):
        unpack(path, tmp_path / "out")
    assert everything(tmp_path) == ["victim", "x.tar"]


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_bombs_are_refused(tmp_path, make):
    made = make(tmp_path / "x", {"a": bytes(600_000), "b": bytes(600_000)})
    with pytest.raises(ArchiveError, match="unpack to more than 1 MB"):
        unpack(made, tmp_path / "out", max_bytes=1_000_000)
    assert everything(tmp_path) == ["x"]
    assert tree(unpack(made, tmp_path / "out", max_bytes=1_200_000)).keys() == {"a", "b"}


def test_a_bomb_is_refused_by_default(tmp_path, monkeypatch):
    """Zeros pack a thousand times; nothing of them is written."""
    monkeypatch.setattr(archive, "_ALWAYS_ALLOWED", 10 << 20)
    made = make_zip(tmp_path / "x.zip", {"zeros": bytes(64 << 20)})
    with pytest.raises(ArchiveError, match="raise max_bytes"):
        unpack(made, tmp_path / "out")
    assert everything(tmp_path) == ["x.zip"]


def test_a_zip_that_lies_about_its_size(tmp_path):
    made = make_zip(tmp_path / "x", {"a": bytes(100_000)})
    raw = made.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    made.write_bytes(raw)
    with pytest.raises(ArchiveError, match="broken"):
        unpack(made, tmp_path / "out")
    assert everything(tmp_path) == ["x"]


def test_too_many_members(tmp_path):
    made = make_zip(tmp_path / "x", {str(n): b"" for n in range(20)})
    with pytest.raises(ArchiveError, match="more than 10 members"):
        list(archive.members(made, Limits(1000, members=10)))


def test_two_members_of_one_path(tmp_path):
    made = tmp_path / "x.tar"
    with tarfile.open(made, "w") as file:
        for name in ("a", "./a"):
            file.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ArchiveError, match="two members are called a"):
        unpack(made, tmp_path / "out")


def test_a_path_that_is_a_file_and_a_folder(tmp_path):
    with pytest.raises(ArchiveError):
        unpack(make_zip(tmp_path / "x", {"a": b"1", "a/b": b"2"}), tmp_path / "out")
    assert everything(tmp_path) == ["x"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_torn_archive_leaves_nothing(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    files = {f"f{n}": os.urandom(5000) for n in range(20)}
    made = make_zip(path, files) if kind == "zip" else make_tar(path, files, KINDS[kind])
    made.write_bytes(made.read_bytes()[:-3000])
    with pytest.raises(ArchiveError):
        unpack(made, tmp_path / "out")
    assert everything(tmp_path) == [f"x.{kind}"]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 100])
def test_no_archive_at_all(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "x", tmp_path / "out")
    with pytest.raises(ArchiveError, match="no such archive"):
        unpack(tmp_path / "y", tmp_path / "out")


def test_a_flipped_bit_is_noticed(tmp_path):
    made = make_zip(tmp_path / "x", {"a": os.urandom(10_000)})
    raw = bytearray(made.read_bytes())
    raw[5000] ^= 1
    made.write_bytes(raw)
    with pytest.raises(ArchiveError, match="broken"):
        unpack(made, tmp_path / "out")


def test_encrypted_members_are_refused(tmp_path):
    made = make_zip(tmp_path / "x", {"a": b"1"})
    raw = bytearray(made.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    made.write_bytes(raw)
    with pytest.raises(ArchiveError, match="encrypted"):
        unpack(made, tmp_path / "out")


def test_times_are_new_and_can_be_renewed(tmp_path):
    before = time.time() - 2
    made = make_tar(tmp_path / "x.tar", FILES)
    folder = unpack(made, tmp_path / "out")
    paths = [folder, *folder.rglob("*")]
    assert all(path.stat().st_mtime > before for path in paths)
    for path in paths:
        os.utime(path, (0, 0))
    unpack(made, folder)
    assert all(path.stat().st_mtime == 0 for path in paths)
    unpack(made, folder, touch=True)
    assert all(path.stat().st_mtime > before for path in paths)


def test_second_call_does_nothing_and_a_new_archive_replaces(tmp_path):
    made = make_zip(tmp_path / "x.zip", FILES)
    folder = unpack(made, tmp_path / "out")
    inode = (folder / "top/a.txt").stat().st_ino
    unpack(made, tmp_path / "out")
    assert (folder / "top/a.txt").stat().st_ino == inode
    make_zip(made, {"new": b"1"})
    os.utime(made, (5, 5))
    assert tree(unpack(made, tmp_path / "out")) == {"new": b"1"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.zip"]


def test_a_moved_archive_with_a_recorded_digest_is_the_same(tmp_path):
    origin = make_zip(tmp_path / "o.zip", FILES)
    source = Source(urls=[origin.as_uri()])
    made = fetch(source, tmp_path / "data", progress=False)
    folder = unpack(made, tmp_path / "out")
    inode = folder.stat().st_ino
    made.unlink()
    made = fetch(source, tmp_path / "data", progress=False)
    assert unpack(made, tmp_path / "out").stat().st_ino == inode


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("work of a year")
    with pytest.raises(ArchiveError, match="not unpacked by us"):
        unpack(make_zip(tmp_path / "x", FILES), tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "work of a year"


def test_flatten_leaves_out_one_top_folder(tmp_path):
    made = make_zip(tmp_path / "x", FILES)
    assert "a.txt" in tree(unpack(made, tmp_path / "out", flatten=True))
    several = make_zip(tmp_path / "y", {"a/1": b"", "b/2": b""})
    assert tree(unpack(several, tmp_path / "out2", flatten=True)).keys() == {"a/1", "b/2"}


def test_permissions_are_those_of_the_folder(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    made = make_tar(tmp_path / "x.tar", FILES, mode=0o4777)
    before = os.umask(0o077)
    try:
        folder = unpack(made, shared / "out")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o7777 == 0o2770
    assert (folder / "top").stat().st_mode & 0o7777 == 0o2770
    assert (folder / "top/a.txt").stat().st_mode & 0o7777 == 0o770  # no set-uid bit


def test_killed_half_way_is_invisible(tmp_path):
    """The second of two files is read from a pipe that never ends, so the worker hangs there."""
    made = make_zip(tmp_path / "x.zip", FILES)
    code = (
        "import sys, time, zipfile\n"
        "from mlmodeldev.data import unpack\n"
        "real = zipfile.ZipFile.open\n"
        "def slow(self, entry, *a, **k):\n"
        "    if entry.filename.endswith('b.bin'):\n"
        "        print('half', flush=True); time.sleep(60)\n"
        "    return real(self, entry, *a, **k)\n"
        "zipfile.ZipFile.open = slow\n"
        "unpack(sys.argv[1], sys.argv[2])"
    )
    arguments = [sys.executable, "-c", code, str(made), str(tmp_path / "out")]
    with subprocess.Popen(arguments, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "half\n"
        assert not (tmp_path / "out").exists()
        process.kill()
    assert tree(unpack(made, tmp_path / "out")) == FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.zip"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_no_name_leaves_the_folder(name):
    """The oracle is the operating system's own notion of a path."""
    from pathlib import Path

    try:
        path = archive.safe_path(Path("x.zip"), name)
    except ArchiveError:
        return
    root = Path("/some/where")
    assert Path(os.path.normpath(root.joinpath(*path.parts))).is_relative_to(root)
