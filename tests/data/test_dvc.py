"""DVC for real, with a local remote and with S3: push, wipe, pull, an older version, train on it.

    make test-dvc

DVC brings 130 packages, which take about a minute, so it has an environment of its own, .venv-dvc,
which `make test` makes. DVC=/path/to/dvc or one on the PATH will do; with none, these are skipped.
What a trial reads of DVC is tested without it, in test_versions.py.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.small_data import write_cola

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / ".venv-dvc" / "bin" / "dvc"
DVC = shutil.which(os.environ.get("DVC") or (str(OWN) if OWN.exists() else "dvc"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DVC is None, reason="no dvc; make test-dvc makes one"),
]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A repository of somebody who uses the template, with a small CoLA."""
    folder = tmp_path / "lab"
    folder.mkdir()
    for name, value in {
        "DVC": str(DVC),
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "DVC_GLOBAL_CONFIG_DIR": str(tmp_path / "dvc-config"),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "dvc-site"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLMODELDEV_MIRROR", raising=False)
    shutil.copy(ROOT / ".gitignore", folder)
    write_cola(folder / "data", train=80, dev=20)
    run(folder, "git", "init", "-q")
    return folder


def run(folder, *command, status=0):
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def version(folder, *arguments):
    """Run the project's command and commit; return the version that it printed."""
    printed = run(folder, "bash", str(ROOT / "tools/data_version.sh"), "data/cola", *arguments)
    run(folder, "git", "add", ".gitignore")
    run(folder, "git", "commit", "-qm", "Data")
    return next(line.split()[1] for line in printed.splitlines() if line.startswith("version:"))


def wipe(folder):
    for path in (folder / ".dvc" / "cache", folder / "data" / "cola"):
        shutil.rmtree(path)


def train_file(folder):
    return folder / "data" / "cola" / "in_domain_train.tsv"


def test_push_wipe_pull_and_train_on_an_older_version(lab, tmp_path, trials):
    first = version(lab, str(tmp_path / "store"))
    old = train_file(lab).read_text()
    run(lab, DVC, "unprotect", "data/cola")
    train_file(lab).write_text(old + "gj04\t1\t\tThe poet sees the cat.\n")
    second = version(lab)
    assert first != second
    new = train_file(lab).read_text()
    wipe(lab)
    run(lab, DVC, "pull", "-q")
    assert train_file(lab).read_text() == new
    assert "up to date" in run(lab, DVC, "status")
    assert "in sync" in run(lab, DVC, "status", "-c")

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
    run(lab, DVC, "pull", "-q", "data/cola.dvc")  # its files are not in the cache any more
    assert train_file(lab).read_text() == old
    run(lab, "git", "checkout", "-q", "HEAD", "--", "data/cola.dvc")
    run(lab, DVC, "checkout", "-q", "data/cola.dvc")  # both are, now
    assert train_file(lab).read_text() == new
    run(lab, "git", "checkout", "-q", "HEAD~1", "--", "data/cola.dvc")
    run(lab, DVC, "checkout", "-q", "data/cola.dvc")
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
    server = Path(str(DVC)).parent / "moto_server"
    if not server.exists():
        pytest.skip("no moto_server beside dvc")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
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
    version(lab, "s3://lab-data/dvc", s3)
    content = train_file(lab).read_text()
    wipe(lab)
    run(lab, DVC, "pull", "-q")
    assert train_file(lab).read_text() == content
    assert "in sync" in run(lab, DVC, "status", "-c")


def test_a_registry_lends_data_to_another_project(lab, tmp_path):
    first = version(lab, str(tmp_path / "store"))
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    shutil.copy(ROOT / ".gitignore", project)
    run(project, "git", "init", "-q")
    run(project, DVC, "init", "-q")
    assert "in_domain_train.tsv" in run(project, DVC, "list", str(lab), "data/cola")
    run(project, DVC, "get", "-q", str(lab), "data/cola", "-o", str(tmp_path / "loose"))
    assert (tmp_path / "loose" / "in_domain_dev.tsv").is_file()
    run(project, DVC, "import", "-q", str(lab), "data/cola", "-o", "data/cola")
    assert train_file(project).read_text() == train_file(lab).read_text()

    from mlmodeldev.data.versions import versions

    (entry,) = versions([train_file(project)])
    assert entry["url"] == str(lab)
    assert entry["revision"] == run(lab, "git", "rev-parse", "HEAD").strip()
    assert (entry["md5"], entry["matches"]) == (first, True)
    run(lab, DVC, "unprotect", "data/cola")
    train_file(lab).write_text(train_file(lab).read_text() + "gj04\t1\t\tA new one.\n")
    version(lab)
    run(project, DVC, "update", "-q", "data/cola.dvc")
    assert train_file(project).read_text().endswith("A new one.\n")


def test_without_a_remote_it_says_so(lab):
    printed = run(lab, "bash", str(ROOT / "tools/data_version.sh"), "data/cola", status=2)
    assert "is there a remote?" in printed
