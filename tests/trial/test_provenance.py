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
