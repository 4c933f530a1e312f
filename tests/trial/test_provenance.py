"""Where a result comes from: commit, difference, digest of what the researcher edits."""

from __future__ import annotations

import subprocess

import pytest

from mlmodeldev.trial.provenance import changes, provenance
from tests.secrets.planted import NEW


@pytest.fixture
def project(tmp_path):
    for name in ("trainer.py", "model.py", "datamodule.py", "other.py"):
        (tmp_path / name).write_text(f"# {name}\n")
    return tmp_path


def git(folder, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_commit_and_whether_the_tree_differs_from_it(project):
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    clean = provenance(project)
    assert (clean["sha"], clean["dirty"]) == (git(project, "rev-parse", "HEAD"), False)
    (project / "runs").mkdir()
    (project / "runs" / "untracked").write_text("")
    assert provenance(project) == clean
    (project / "other.py").write_text("changed")
    assert provenance(project) == {**clean, "dirty": True}


def test_without_a_repository_commit_and_difference_are_unknown(project, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    record = provenance(project)
    assert (record["sha"], record["dirty"]) == (None, None)
    assert record["source"]


def test_without_git_it_is_the_same(project, monkeypatch):
    monkeypatch.setenv("PATH", str(project))
    assert provenance(project)["sha"] is None


@pytest.mark.parametrize("name", ["trainer.py", "model.py", "datamodule.py"])
def test_the_digest_follows_each_front_room(project, name):
    before = provenance(project)["source"]
    text = (project / name).read_text()
    (project / name).write_text(text + "\n")
    changed = provenance(project)["source"]
    assert changed != before
    (project / name).write_text(text)
    assert provenance(project)["source"] == before
    (project / name).unlink()
    assert provenance(project)["source"] != before


def test_the_digest_does_not_follow_other_files(project):
    before = provenance(project)["source"]
    (project / "other.py").write_text("changed")
    assert provenance(project)["source"] == before


def test_by_default_it_is_of_this_project():
    assert set(provenance()) == {"sha", "dirty", "source", "remote"}
    assert len(provenance()["source"]) == 16


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://github.com/lab/project.git", "https://github.com/lab/project.git"),
        ("https://user:tokentoken@github.com/lab/p.git", "https://github.com/lab/p.git"),
        ("https://tokentoken:x-oauth-basic@host:8443/p", "https://host:8443/p"),
        ("git@github.com:lab/project.git", "git@github.com:lab/project.git"),
    ],
)
def test_where_it_came_from_is_reported_without_the_login(project, address, shown):
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    assert provenance(project)["remote"] is None
    git(project, "remote", "add", "origin", address)
    assert provenance(project)["remote"] == shown


def test_changes_are_those_of_tracked_files_with_keys_masked(project):
    assert changes(project) == ""
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    assert changes(project) == ""
    (project / "untracked.py").write_text("x = 1\n")
    assert changes(project) == ""
    (project / "model.py").write_text(f"width = 64\nKEY = '{NEW}'\n")
    text = changes(project)
    assert "-# model.py\n" in text
    assert "+width = 64\n+KEY = '[W&B API key]'\n" in text
    assert NEW not in text


def test_code_that_git_does_not_track_counts(project):
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    mine = project / "nets" / "mine.py"
    mine.parent.mkdir()
    mine.write_text(f"width = 64\nKEY = '{NEW}'")
    assert provenance(project)["dirty"] is False
    assert provenance(project, ["model.py"])["dirty"] is False
    assert provenance(project, ["model.py", "nets/mine.py"])["dirty"] is True
    text = changes(project, ["model.py", "nets/mine.py"])
    assert NEW not in text
    mine.unlink()
    subprocess.run(["git", "apply", "-"], input=text, cwd=project, check=True, text=True)
    assert mine.read_text() == "width = 64\nKEY = '[W&B API key]'"


@pytest.mark.parametrize("content", ["", "\n", "a\n", "a", "a\n\nb\n", "a\r\nb\x0cc\n"])
def test_git_applies_what_is_written_of_a_new_file(project, content):
    git(project, "init", "-q")
    (project / "mine.py").write_bytes(content.encode())
    text = changes(project, ["mine.py"])
    (project / "mine.py").unlink()
    subprocess.run(["git", "apply", "-"], input=text.encode(), cwd=project, check=True)
    assert (project / "mine.py").read_bytes() == content.encode()


def test_ignored_code_counts_too(project):
    git(project, "init", "-q")
    (project / ".gitignore").write_text("mine.py\n")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    (project / "mine.py").write_text("x = 1\n")
    assert provenance(project, ["mine.py"])["dirty"] is True
    assert "+x = 1\n" in changes(project, ["mine.py"])


def test_a_snapshot_tells_the_same(project, tmp_path_factory):
    from mlmodeldev.slurm.snapshot import take_snapshot

    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    (project / "mine.py").write_text("x = 1\n")
    (project / "model.py").write_text("width = 64\n")
    copy = take_snapshot(project, tmp_path_factory.mktemp("runs"))
    for code in ([], ["model.py"], ["mine.py", "model.py"]):
        assert provenance(copy, code) == provenance(project, code)
        assert changes(copy, code) == changes(project, code)
    (project / "model.py").write_text("# model.py\n")
    copy = take_snapshot(project, tmp_path_factory.mktemp("runs"))
    assert provenance(copy, ["model.py"])["dirty"] is False
    assert provenance(copy, ["mine.py"])["dirty"] is True
