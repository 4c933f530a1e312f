"""``mlmodeldev version`` refuses what it can't keep, in one line, before DVC is called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from mlmodeldev.atomic import own_file
from mlmodeldev.data.stages import write_stages
from mlmodeldev.data.version_command import main
from mlmodeldev.data.versions import versions
from mlmodeldev.lease import owner_record, start_ticks
from tests.data.lab import begin, run


@pytest.fixture
def lab(tmp_path, monkeypatch):
    folder = begin(tmp_path / "lab")
    trial = folder / "runs" / "digits" / "ab12cd34"
    (trial / "best").mkdir(parents=True)
    (trial / "best" / "model.safetensors").write_text("weights")
    (trial / "trial.json").write_text(json.dumps({"state": "done"}))
    monkeypatch.chdir(folder)
    return folder


def refused(capsys, *arguments):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture
def no_dvc(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("MLMODELDEV_DVC", raising=False)
    monkeypatch.delitem(sys.modules, "trainer", raising=False)  # whose folder would be the project


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "which files or folders?"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["runs", "--endpoint", "http://h"], "--endpoint: belongs to --remote"),
        (["runs", "--remote", "s3://key:secret@bucket/x"], "keys belong in the environment"),
        (["runs", "--remote", "https://host/x?sig=secret"], "keys belong in the environment"),
        (["runs", "--remot", "x", "--push"], "unrecognized arguments: --push"),
        (["no/where"], "no/where: no such file or folder"),
        (["."], "is the repository itself"),
        (["../bin"], "lies in no git repository"),
        (["runs", "../bin"], "../bin: lies outside of the repository"),
        (["runs/digits/ab12cd34"], "make .venv-dvc in a clone, else python -m venv"),
    ],
)
@pytest.mark.usefixtures("no_dvc")
def test_bad_input_is_one_line(lab, capsys, arguments, line):
    error = refused(capsys, *arguments)
    assert line in error
    assert "secret" not in error
    assert not (lab / ".dvc").exists()
    assert not (lab / "versions").exists()


@pytest.mark.usefixtures("no_dvc")
def test_a_program_that_is_not_there(lab, capsys, monkeypatch):
    monkeypatch.setenv("MLMODELDEV_DVC", "/opt/dvc")
    assert "MLMODELDEV_DVC=/opt/dvc: no such program" in refused(capsys, "runs/digits/ab12cd34")


def test_outside_of_git(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert "lies in no git repository" in refused(capsys, "file")


@pytest.mark.parametrize("path", ["runs/digits/ab12cd34", "runs/digits", "runs"])
def test_a_trial_that_runs_is_refused_and_one_whose_process_died_is_not(lab, capsys, path):
    record = lab / "runs" / "digits" / "ab12cd34" / "trial.json"
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        owner = {**owner_record()["owner"], "pid": process.pid}
        owner["started"] = start_ticks(process.pid)
        running = {**owner_record(), "owner": owner, "state": "running"}
        record.write_text(json.dumps(running))
        for part in (path, "runs/digits/ab12cd34/best"):
            assert "ab12cd34: this trial runs on host" in refused(capsys, part)
    finally:
        process.communicate()
    assert "this trial runs" not in refused(capsys, path)  # there is no remote, or no dvc


def test_data_that_git_ignores_have_their_pointer_in_versions(lab):
    data = lab / "data" / "words.txt"
    data.parent.mkdir()
    data.write_text("a b c")
    pointer = lab / "versions" / "data" / "words.txt.dvc"
    assert versions([data]) == []
    pointer.parent.mkdir(parents=True)
    (lab / ".dvc").mkdir()
    md5 = "c6ac53ee9dee6a91a0a7d71d1d6d7d42"
    pointer.write_text(f"wdir: ../../data\nouts:\n- path: words.txt\n  md5: {md5}\n")
    (entry,) = versions([data])
    assert (entry["pointer"], entry["md5"]) == ("versions/data/words.txt.dvc", md5)
    assert entry["matches"] is False
    right = run(lab, "md5sum", str(data)).split()[0]
    pointer.write_text(pointer.read_text().replace(md5, right))
    assert versions([data])[0]["matches"] is True


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_that_is_a_link_is_made_ones_own(tmp_path, link):
    cached, file = tmp_path / "cached", tmp_path / "log.txt"
    cached.write_text("one\n")
    link(cached, file)
    with own_file(file).open("a") as opened:
        opened.write("two\n")
    assert (cached.read_text(), file.read_text()) == ("one\n", "one\ntwo\n")
    before = file.stat().st_ino
    assert own_file(file).stat().st_ino == before
    assert not own_file(tmp_path / "new").exists()


def test_stages_are_not_written_over(tmp_path):
    from mlmodeldev.errors import UsageError

    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(UsageError, match=r"dvc\.yaml: is there already"):
        write_stages(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.yaml"]
