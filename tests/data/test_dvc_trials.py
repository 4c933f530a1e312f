"""Trials kept by DVC for real: cut off, kept, wiped, pulled, and gone on with, bit for bit."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil

import pytest
import torch

import mlmodeldev
from tests.conftest import Trials
from tests.data.lab import begin, commit, dvc, kept, needs_dvc, run, set_environment, version

pytestmark = [pytest.mark.slow, pytest.mark.project, needs_dvc]

SMALL = (
    "logger=csv",
    "model.hidden_size=16",
    "model.num_layers=1",
    "training.max_epochs=2",
    "training.log_every_n_steps=5",
    "processing.batch_size=64",
    "callbacks.cka.enabled=false",
)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A repository; its trials are git-ignored."""
    set_environment(monkeypatch.setenv, tmp_path)
    folder = begin(tmp_path / "lab")
    trial = folder / "runs" / "digits" / "ab12cd34"
    (trial / "best").mkdir(parents=True)
    (trial / "trial.json").write_text(json.dumps({"state": "done"}))
    (trial / "best" / "model.safetensors").write_bytes(bytes(range(256)))
    (trial / "log.txt").write_text("epoch 1\n")
    return folder


def digests(folder):
    """The content of every file below a folder but for locks."""
    return {
        path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".record.lock")
    }


def rows(trial):
    with (trial / "metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if not name.startswith("time/")}
            for row in csv.DictReader(file)
        ]


def refuse_broken_cache(cache):
    """Each file of the cache is named by its own MD5."""
    files = [path for path in (cache / "files" / "md5").rglob("*") if path.is_file()]
    assert files
    for path in files:
        name = f"{path.parent.name}{path.name}".removesuffix(".dir")
        assert hashlib.md5(path.read_bytes()).hexdigest() == name


def test_what_was_kept_comes_back_and_a_trial_goes_on_bit_for_bit(lab, tmp_path, data_dir):
    trials, cut = Trials(lab / "runs", data_dir), lab / "runs" / "single" / "cut"
    assert trials.run(*SMALL, kill_at=30, name="cut").code
    names = ("runs/single/cut", "runs/digits/ab12cd34/best", "runs/digits/ab12cd34/log.txt")
    printed = version(lab, *names, "--remote", str(tmp_path / "store"))
    pointers = [f"versions/{name}.dvc" for name in names]
    for md5, pointer in zip(kept(printed), pointers, strict=True):
        assert md5 in (lab / pointer).read_text()
        assert f"{md5}  {pointer}" in printed
    staged = run(lab, "git", "diff", "--cached", "--name-only").split()
    assert {*pointers, ".dvcignore", ".dvc/config"} <= set(staged)
    assert all(file.stat().st_nlink == 1 for file in cut.rglob("*") if file.is_file())
    commit(lab, "Trials")
    before, untouched = digests(lab / "runs"), tmp_path / "untouched" / "single" / "cut"
    shutil.copytree(cut, untouched)

    record = lab / "runs" / "digits" / "ab12cd34" / "trial.json"
    shutil.copy(record, tmp_path)
    for path in (lab / ".dvc" / "cache", lab / "runs" / "single", lab / "runs" / "digits"):
        shutil.rmtree(path)
    config = lab / ".dvc" / "config"
    config.write_text(config.read_text().replace("reflink,hardlink", "hardlink"))
    dvc(lab, "pull", "-q", *pointers)
    shutil.copy(tmp_path / "trial.json", record)  # of this trial, two parts were kept
    assert digests(lab / "runs") == before
    assert (cut / "metrics.csv").stat().st_nlink > 1  # a link into the cache

    after = trials.run(*SMALL, name="cut")
    other = Trials(tmp_path / "untouched", data_dir).run(*SMALL, name="cut")
    assert (after.code, other.code) == (0, 0), after.output + other.output
    assert after.record["attempts"] == other.record["attempts"] == 2
    assert rows(cut) == rows(untouched)
    assert after.log == other.log
    mine, theirs = (mlmodeldev.load(place / "best").state_dict() for place in (cut, untouched))
    assert mine
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    refuse_broken_cache(lab / ".dvc" / "cache")  # nothing was written through a link


@pytest.mark.parametrize(
    "first", ["versions/runs/digits/ab12cd34/best.dvc", "versions/runs/digits.dvc"]
)
def test_a_file_has_one_pointer(lab, first):
    (lab / first).parent.mkdir(parents=True)
    (lab / first).write_text("outs: []\n")
    refused = version(lab, "runs/digits/ab12cd34", "--no-push", status=2)
    assert f"runs/digits/ab12cd34: {first} keeps" in refused
    assert not (lab / ".dvc").exists()


def test_what_a_stage_makes_is_kept_by_the_stage(lab):
    stage = {"cmd": "x", "outs": ["data", {"runs/digits/ab12cd34": {"cache": True}}]}
    (lab / "dvc.yaml").write_text(json.dumps({"stages": {"train": stage}}))
    for name in ("runs/digits/ab12cd34", "runs/digits", "runs/digits/ab12cd34/best"):
        refused = version(lab, name, "--no-push", status=2)
        assert "dvc.yaml keeps" in refused
