"""DVC for real, with a local remote and with S3: push, wipe, pull, an older version, train on it.

    make test-dvc

DVC brings 130 packages, which take about a minute, so it has an environment of its own, .venv-dvc,
which `make test` makes. MLMODELDEV_DVC=/path/to/dvc or one on the PATH will do; with none, these
are skipped. What a trial reads of DVC is tested without it, in test_versions.py.
"""

from __future__ import annotations

import shutil
import socket
import stat
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.data.lab import DVC, OWN, begin, commit, dvc, kept, needs_dvc, run, set_environment
from tests.data.lab import version as keep
from tests.small_data import write_cola

pytestmark = [pytest.mark.slow, needs_dvc]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A repository of somebody who uses the template, with a small CoLA."""
    set_environment(monkeypatch.setenv, tmp_path)
    monkeypatch.delenv("MLMODELDEV_MIRROR", raising=False)
    folder = begin(tmp_path / "lab")
    write_cola(folder / "data", train=80, dev=20)
    return folder


def version(folder, *options):
    """Keep the data and commit; return the version that was printed."""
    (result,) = kept(keep(folder, "data/cola", *options))
    commit(folder)
    return result


def wipe(folder):
    for path in (folder / ".dvc" / "cache", folder / "data" / "cola"):
        shutil.rmtree(path)


def train_file(folder):
    return folder / "data" / "cola" / "in_domain_train.tsv"


def test_push_wipe_pull_and_train_on_an_older_version(lab, tmp_path, trials):
    first = version(lab, "--remote", str(tmp_path / "store"))
    old = train_file(lab).read_text()
    dvc(lab, "unprotect", "data/cola")
    train_file(lab).write_text(old + "gj04\t1\t\tThe poet sees the cat.\n")
    second = version(lab)
    assert first != second
    new = train_file(lab).read_text()
    wipe(lab)
    dvc(lab, "pull", "-q")
    assert train_file(lab).read_text() == new
    assert "up to date" in dvc(lab, "status")
    assert "in sync" in dvc(lab, "status", "-c")

    trials.data = lab / "data"
    small = (
        "data=cola",
        "model=text_classifier",
        "logger=csv",
        "model.hidden_size=16",
        "model.num_layers=1",
    )
    quick = (*small, "callbacks.cka.enabled=false", "training.test=false")
    now = trials.run(*quick, "training.max_epochs=1", name="now")
    assert now.code == 0, now.output
    assert [entry["md5"] for entry in now.record["data"]["dvc"]] == [second]

    run(lab, "git", "checkout", "-q", "HEAD~1", "--", "data/cola.dvc")
    dvc(lab, "pull", "-q", "data/cola.dvc")  # its files are not in the cache any more
    assert train_file(lab).read_text() == old
    run(lab, "git", "checkout", "-q", "HEAD", "--", "data/cola.dvc")
    dvc(lab, "checkout", "-q", "data/cola.dvc")  # both are, now
    assert train_file(lab).read_text() == new
    run(lab, "git", "checkout", "-q", "HEAD~1", "--", "data/cola.dvc")
    dvc(lab, "checkout", "-q", "data/cola.dvc")
    assert train_file(lab).read_text() == old
    run(lab, "git", "commit", "-qm", "Back to the first version")
    refused = trials.run(*quick, "training.max_epochs=2", name="now")
    assert refused.code == 2
    assert f"now data/cola.dvc {first[:8]}" in refused.output
    then = trials.run(*quick, "training.max_epochs=1", name="then")
    (entry,) = then.record["data"]["dvc"]
    head = run(lab, "git", "rev-parse", "HEAD").strip()
    assert (entry["md5"], entry["commit"]) == (first, head)
    assert (entry["committed"], entry["matches"]) == (True, True)


@pytest.fixture(scope="module")
def s3():
    """A server that speaks S3, on loopback."""
    beside = Path(str((DVC or [""])[0])).parent / "moto_server"
    server = [str(beside)] if beside.exists() else [str(OWN), "-m", "moto.server"]
    if not Path(server[0]).exists():
        pytest.skip("no moto_server beside dvc")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [*server, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                request = urllib.request.Request(f"{url}/lab-data", method="PUT")
                urllib.request.urlopen(request, timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def test_the_same_with_s3(lab, s3):
    version(lab, "--remote", "s3://lab-data/dvc", "--endpoint", s3)
    content = train_file(lab).read_text()
    wipe(lab)
    dvc(lab, "pull", "-q")
    assert train_file(lab).read_text() == content
    assert "in sync" in dvc(lab, "status", "-c")


def test_a_registry_lends_data_to_another_project(lab, tmp_path):
    first = version(lab, "--remote", str(tmp_path / "store"))
    project = begin(tmp_path / "project")
    (project / "data").mkdir()
    dvc(project, "init", "-q")
    assert "in_domain_train.tsv" in dvc(project, "list", str(lab), "data/cola")
    dvc(project, "get", "-q", str(lab), "data/cola", "-o", str(tmp_path / "loose"))
    assert (tmp_path / "loose" / "in_domain_dev.tsv").is_file()
    dvc(project, "import", "-q", str(lab), "data/cola", "-o", "data/cola")
    assert train_file(project).read_text() == train_file(lab).read_text()

    from mlmodeldev.data.versions import versions

    (entry,) = versions([train_file(project)])
    assert entry["url"] == str(lab)
    assert entry["revision"] == run(lab, "git", "rev-parse", "HEAD").strip()
    assert (entry["md5"], entry["matches"]) == (first, True)
    dvc(lab, "unprotect", "data/cola")
    train_file(lab).write_text(train_file(lab).read_text() + "gj04\t1\t\tA new one.\n")
    version(lab)
    dvc(project, "update", "-q", "data/cola.dvc")
    assert train_file(project).read_text().endswith("A new one.\n")


def test_without_a_remote_it_says_so_and_does_nothing(lab):
    assert "--remote /shared/dvc" in keep(lab, "data/cola", status=2)
    assert not (lab / ".dvc").exists()
    assert not (lab / "data" / "cola.dvc").exists()


def test_one_cache_for_two_clones(lab, tmp_path):
    shared = tmp_path / "cache"
    dvc(lab, "init", "-q")  # a repository that is there already
    dvc(lab, "cache", "dir", str(shared))
    dvc(lab, "config", "cache.shared", "group")
    config = lab / ".dvc" / "config"
    config.write_text(config.read_text().replace("[cache]", "[cache]\n    type = hardlink"))
    version(lab, "--no-push")
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(lab), str(clone))
    dvc(clone, "checkout", "-q")  # nothing was pushed: the cache has them
    mine, theirs = train_file(lab), train_file(clone)
    assert theirs.read_text() == mine.read_text()
    assert theirs.stat().st_ino == mine.stat().st_ino  # their room is taken once
    folders = [path for path in shared.rglob("*") if path.is_dir()]
    assert folders
    assert all(path.stat().st_mode & stat.S_IWGRP for path in folders)
