"""source.zip: the files that a commit does not give, whole; none with a key, none too large."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.trial import source
from mlmodeldev.trial.source import differences, keep_source, read_file, read_source, unpack
from tests.secrets.planted import NEW

SETTINGS = {"artefacts": {"runs_dir": "trials", "data_dir": "data"}}


def git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    for name in ("trainer.py", "model.py", "old.py"):
        (root / name).write_text(f"# {name}\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def kept(folder: Path, root: Path, *code: str, former: int | None = None) -> dict[str, bytes]:
    """Keep the project's differences; return the files."""
    folder.mkdir(exist_ok=True)
    keep_source(folder, root, code, SETTINGS, former)
    listed = read_source(folder)
    assert listed is not None
    assert listed.settings == SETTINGS
    return {name: read_file(folder, name) or b"" for name in listed.files}


def test_edited_new_ignored_and_removed_files(project: Path, tmp_path: Path) -> None:
    assert kept(tmp_path / "a", project, "trainer.py", "model.py") == {}
    (project / "model.py").write_bytes(b"width = 64\r\n\xff")
    (project / "table.bin").write_bytes(b"\0\1\2")
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / ".gitignore").write_text("mine.py\nother.py\n")
    (project / "mine.py").write_text("x = 1")
    (project / "other.py").write_text("never imported")
    (project / "old.py").unlink()
    for name in ("trials/single/a/log.json", "data/train.txt", "wandb/run.log", ".cache/x"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("no code")
    files = kept(tmp_path / "a", project, "trainer.py", "model.py", "mine.py")
    assert files == {
        "model.py": b"width = 64\r\n\xff",
        "table.bin": b"\0\1\2",
        "run.sh": b"#!/bin/sh\n",
        "mine.py": b"x = 1",
    }
    listed = read_source(tmp_path / "a")
    assert listed is not None
    assert (listed.deleted, listed.left_out) == (["old.py"], {})
    again = tmp_path / "again"
    subprocess.run(["git", "clone", "-q", str(project), str(again)], check=True)
    unpack(tmp_path / "a", listed, again)
    for name in ("trainer.py", "model.py", "table.bin", "run.sh", "mine.py"):
        assert (again / name).read_bytes() == (project / name).read_bytes()
    assert (again / "run.sh").stat().st_mode & 0o100
    assert not (again / "old.py").exists()


def test_a_project_below_the_repositorys_top(project: Path, tmp_path: Path) -> None:
    inner = project / "lab" / "digits"
    inner.mkdir(parents=True)
    (inner / "model.py").write_text("x = 1\n")
    git(project, "add", ".")
    git(project, "commit", "-qm", "second")
    (inner / "model.py").write_text("x = 2\n")
    (project / "trainer.py").write_text("edited, but not this project's\n")
    listed = differences(inner)
    assert (listed.prefix, listed.files) == ("lab/digits/", ["model.py"])


def test_keys_and_large_files_are_left_out_and_named(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "model.py").write_text(f"KEY = '{NEW}'\n")
    (project / "large.txt").write_text("a" * (source.LARGEST + 1))
    (project / "link.txt").symlink_to(project / "trainer.py")
    assert kept(tmp_path / "a", project, "model.py") == {}
    listed = read_source(tmp_path / "a")
    assert listed is not None
    reasons = {name: str(each["reason"]) for name, each in listed.left_out.items()}
    assert list(reasons) == ["model.py", "large.txt", "link.txt"]
    assert reasons["model.py"] == "model.py:1: holds a key (W&B API key)"
    assert reasons["large.txt"] == f"{source.LARGEST + 1} bytes: too large"
    assert reasons["link.txt"] == "is a link"
    assert all(len(digest or "") == 64 for digest in listed.digests.values())
    assert NEW.encode() not in (tmp_path / "a" / "source.zip").read_bytes()
    # what the code is made of comes before anything else that lies about
    (project / "model.py").write_text("b" * 60)
    (project / "a.txt").write_text("c" * 60)
    monkeypatch.setattr(source, "LARGEST_IN_ALL", 100)
    assert list(kept(tmp_path / "b", project, "model.py")) == ["model.py"]
    monkeypatch.setattr(source, "MOST_FILES", 1)
    kept(tmp_path / "c", project, "model.py")
    listed = read_source(tmp_path / "c")
    assert listed is not None
    assert listed.uncounted == 2


def test_what_an_earlier_attempt_ran_keeps_its_number(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (project / "model.py").write_text("x = 1\n")
    kept(folder, project, "model.py")
    first = (folder / "source.zip").read_bytes()
    kept(folder, project, "model.py", former=1)
    assert [file.name for file in folder.iterdir()] == ["source.zip"]
    assert (folder / "source.zip").read_bytes() == first
    (project / "model.py").write_text("x = 2\n")
    assert kept(folder, project, "model.py", former=2) == {"model.py": b"x = 2\n"}
    assert (folder / "source-2.zip").read_bytes() == first


def test_a_damaged_archive_and_names_that_lead_out_are_refused(
    project: Path, tmp_path: Path
) -> None:
    (project / "model.py").write_text("x = 1\n")
    folder = tmp_path / "a"
    kept(folder, project, "model.py")
    listed = read_source(folder)
    assert listed is not None
    listed.files = {"../model.py": "0" * 64}
    with pytest.raises(UsageError, match="leads out of the project"):
        unpack(folder, listed, tmp_path / "again")
    listed.deleted, listed.files = ["../project/trainer.py"], {}
    with pytest.raises(UsageError, match="leads out of the project"):
        unpack(folder, listed, tmp_path / "again")
    assert (project / "trainer.py").is_file()
    content = (folder / "source.zip").read_bytes()
    (folder / "source.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=r"source\.zip: is damaged"):
        read_source(folder)
