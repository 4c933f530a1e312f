"""Other users of the machine: what they may write to, and where their planted files lead."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path

import pytest

from mlmodeldev.atomic import atomic_path, make_folder, replace_folder, write_json, write_shared
from mlmodeldev.data.staging import _automatic
from mlmodeldev.lease import ProcessLock
from mlmodeldev.machine import keep_from_others
from mlmodeldev.trial.folder import TrialFolder


@pytest.fixture
def open_to_all() -> Iterator[None]:
    """The umask of an account that lets everybody write."""
    before = os.umask(0)
    yield
    os.umask(before)


def writable_by_all(folder: Path) -> list[str]:
    return [
        str(each.relative_to(folder))
        for each in folder.rglob("*")
        if not each.is_symlink() and each.stat().st_mode & stat.S_IWOTH
    ]


def test_nothing_of_a_trial_is_writable_for_everybody(tmp_path: Path, open_to_all: None) -> None:
    keep_from_others()
    folder = TrialFolder(make_folder(tmp_path / "sweep" / "trial"))
    folder.update(state="pending")
    write_json(tmp_path / "a.json", {})
    with atomic_path(tmp_path / "deep" / "b.bin") as path:
        path.write_bytes(b"x")
    with replace_folder(tmp_path / "best") as path:
        (path / "weights").write_bytes(b"x")
    with ProcessLock(tmp_path / "lock", timeout=1):
        assert writable_by_all(tmp_path) == []
    assert os.umask(0) & 0o002


def test_the_commands_set_it(tmp_path: Path) -> None:
    """Each entry does, before it writes: the launcher stands for them."""
    code = (
        "import os; os.umask(0)\n"
        "from mlmodeldev.slurm.command_line import main\n"
        "main(['plan', 'no.such=1'])\n"
        "print(oct(os.umask(0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split()[-1] == "0o2", done.stdout + done.stderr


def test_a_stricter_umask_stays() -> None:
    before = os.umask(0o077)
    try:
        keep_from_others()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)


def test_of_a_folder_like_tmp_the_right_of_everybody_is_not_passed_on(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    folder = make_folder(tmp_path / "mine" / "deep")
    write_shared(folder / "file", b"x")
    assert writable_by_all(tmp_path) == []
    assert not folder.stat().st_mode & stat.S_ISVTX


@pytest.fixture
def in_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that all users share, on another disk than the data."""
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    monkeypatch.setenv("SLURM_TMPDIR", str(place))
    return place


class OtherDisk:
    """Stands in for data on another disk."""

    folder = Path("/proc")


def test_staged_data_lie_in_a_folder_of_ones_own(in_job: Path, open_to_all: None) -> None:
    source: object = OtherDisk()
    folder = _automatic(source)  # type: ignore[arg-type]
    assert folder == in_job / f"mlmodeldev-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert _automatic(source) == folder  # type: ignore[arg-type]


@pytest.mark.parametrize("planted", ["a link", "a file", "open to all", "open to a group"])
def test_what_others_have_planted_there_is_not_used(in_job: Path, planted: str) -> None:
    name = in_job / f"mlmodeldev-{os.getuid()}"
    victim = in_job.parent / "precious"
    victim.mkdir()
    if planted == "a link":
        name.symlink_to(victim)
    elif planted == "a file":
        name.write_text("")
    else:
        name.mkdir()
        name.chmod(0o777 if planted == "open to all" else 0o770)
    source: object = OtherDisk()
    assert _automatic(source) is None  # type: ignore[arg-type]
    assert list(victim.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes another's folder")
def test_anothers_folder_of_that_name_is_not_used(in_job: Path) -> None:
    name = in_job / f"mlmodeldev-{os.getuid()}"
    name.mkdir(mode=0o700)
    os.chown(name, 12345, 12345)
    source: object = OtherDisk()
    assert _automatic(source) is None  # type: ignore[arg-type]


def test_sockets_of_workers_lie_in_a_folder_that_nobody_else_enters(open_to_all: None) -> None:
    folder = Path(util.get_temp_dir())
    status = folder.lstat()
    assert status.st_uid == os.getuid()
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert folder.parent == Path(tempfile.gettempdir())


def test_temporary_names_can_not_be_guessed(tmp_path: Path) -> None:
    """A link that lies where a file will be written is never met, nor followed."""
    names = []
    for _ in range(3):
        with atomic_path(tmp_path / "a.bin") as path:
            path.write_bytes(b"x")
            names.append(path.name)
    assert len({*names}) == 3
    assert all(len(name) > len("a.bin") + 16 for name in names)
