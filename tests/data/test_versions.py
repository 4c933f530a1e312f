"""The version of the data is read from DVC's pointers without DVC, and kept in a trial's record."""

from __future__ import annotations

import json
import subprocess

import pytest

from mlmodeldev.data.versions import versions
from tests.small_data import write_cola

# What DVC 3.67.1 wrote for these two files.
FILES = {
    "in_domain_dev.tsv": "gj04\t0\t*\tA the cat.\n",
    "in_domain_train.tsv": "gj04\t1\t\tA cat.\n",
}
MD5 = "b5ad1266c5b7cc90e92aa7a335878dcb.dir"
POINTER = f"outs:\n- md5: {MD5}\n  size: 35\n  nfiles: 2\n  hash: md5\n  path: cola\n"


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def lab(tmp_path):
    """A repository with data that DVC tracks."""
    folder = tmp_path / "lab"
    (folder / "data" / "cola").mkdir(parents=True)
    for name, content in FILES.items():
        (folder / "data" / "cola" / name).write_text(content)
    (folder / "data" / "cola.dvc").write_text(POINTER)
    git(tmp_path, "init", "-q", "lab")
    git(folder, "add", "data/cola.dvc")
    git(folder, "commit", "-qm", "one")
    return folder


def test_pointer_commit_and_whether_the_data_are_its(lab):
    paths = [lab / "data" / "cola" / name for name in FILES]
    (version,) = versions(paths)
    assert version == {
        "pointer": "data/cola.dvc",
        "md5": MD5,
        "commit": git(lab, "rev-parse", "HEAD"),
        "committed": True,
        "matches": True,
    }
    (lab / "data" / "cola" / ".fetch").mkdir()
    (lab / "data" / "cola" / ".fetch" / "x.json").write_text("{}")  # ours, in .dvcignore
    assert versions(paths)[0]["matches"] is True
    paths[0].write_text("changed\n")
    assert versions(paths)[0]["matches"] is False
    (lab / "data" / "cola.dvc").write_text(POINTER.replace("b5ad", "0000"))
    assert versions(paths)[0]["committed"] is False


def test_a_single_file_and_an_import(lab):
    file = lab / "data" / "a.txt"
    file.write_text("abc")
    registry = {"url": "https://host/registry", "rev_lock": "9a0d"}
    md5 = "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321
    (lab / "data" / "a.txt.dvc").write_text(
        json.dumps(
            {"deps": [{"path": "a.txt", "repo": registry}], "outs": [{"md5": md5, "path": "a.txt"}]}
        )
    )
    (version,) = versions([file])
    assert (version["md5"], version["matches"]) == (md5, True)
    assert (version["url"], version["revision"]) == ("https://host/registry", "9a0d")


def test_without_dvc_there_is_nothing(tmp_path, lab):
    assert versions([tmp_path / "x", lab / "elsewhere"]) == []
    (lab / "data" / "cola.dvc").write_text("<<<<<<< HEAD\nouts:\n=======\n")
    assert versions([lab / "data" / "cola" / "in_domain_dev.tsv"]) == []


SMALL = (
    "data=cola",
    "model=text_classifier",
    "logger=csv",
    "model.hidden_size=16",
    "model.num_layers=1",
    "callbacks.cka.enabled=false",
    "training.test=false",
)


def test_other_data_on_resume_are_refused_or_reported(trials, tmp_path):
    trials.data = tmp_path / "data"
    folder = write_cola(trials.data, train=80, dev=20)
    train = folder / "in_domain_train.tsv"
    first = trials.run(*SMALL, "training.max_epochs=1")
    assert first.code == 0, first.output
    before = first.record["data"]["inputs"]
    sum_ = subprocess.run(["sha256sum", train], capture_output=True, text=True, check=True).stdout
    assert before["cola/in_domain_train.tsv"] == sum_.split()[0]
    original = train.read_text()
    train.write_text(original + "gj04\t1\t\tThe poet sees the cat.\n")
    refused = trials.run(*SMALL, "training.max_epochs=2")
    assert refused.code == 2
    assert "cola/in_domain_train.tsv: the data have changed since this trial" in refused.output
    assert "artefacts.changed_data=warn" in refused.output
    assert refused.record["data"]["inputs"] == before
    resumed = trials.run(*SMALL, "training.max_epochs=2", "artefacts.changed_data=warn")
    assert resumed.code == 0, resumed.output
    assert "warning: cola/in_domain_train.tsv" in resumed.output
    assert resumed.record["data"]["inputs"] != before
