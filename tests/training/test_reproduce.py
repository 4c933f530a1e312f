"""A trial run again in an empty folder: bit for bit the same, or the first thing that differs."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mlmodeldev.slurm.trial_command import main
from tests.fetch.fault_server import FaultServer
from tests.secrets.planted import NEW
from tests.training.pretended_project import Project, change_json, change_setting, git
from tests.training.reproduce_calls import answer, online

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = (
    'data = Path(places["data_dir"]) / "numbers.txt"\nbase = data.parent',
    "from mlmodeldev.fetch.manifest import prepare\n"
    'data = prepare("numbers.yaml", places["data_dir"]) / "numbers.txt"\n'
    'base = Path(places["data_dir"]).absolute()',
)
"""An edit of the pretended trainer.py: its data come from a server."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path / "project")
    monkeypatch.chdir(made.root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MLMODELDEV_PROJECT", raising=False)
    monkeypatch.delitem(sys.modules, "trainer", raising=False)  # whose folder would be the project
    return made


def line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which refuses; return its one line."""
    capsys.readouterr()
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


# --- the same


def test_edited_and_untracked_code_comes_back(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.edit("model.py", "SCALE = 2", "SCALE = 3")
    trial = project.train("a")
    project.edit("model.py", "SCALE = 3", "SCALE = 5")
    project.edit("words.txt", "table", "list")
    project.commit()
    status, report = answer(capsys, "reproduce", "a")
    assert (status, report["verdict"], report["differences"]) == (0, "reproduced", [])
    assert report["rows"] == 3
    folder = Path(report["folder"])
    assert folder == project.root / "runs/.reproduced/single/a"
    assert "SCALE = 3" in (folder / "code/model.py").read_text()
    again = json.loads((folder / "runs/single/a/trial.json").read_text())
    assert again["code"] == json.loads((trial / "trial.json").read_text())["code"]
    pinned = (folder / "requirements.txt").read_text()
    assert "\nnumpy==" in pinned
    assert main(["reproduce", "a"]) == 0
    assert "reproduced bit for bit: 3 rows of metrics" in capsys.readouterr().out
    assert (folder.parent / "a-2").is_dir()


def test_the_folder_alone_and_a_clone_are_enough(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = shutil.copytree(project.train("a"), tmp_path / "received" / "a")
    (project.root / "words.txt").unlink()
    shutil.rmtree(project.root / "runs")
    place = str(tmp_path / "place")
    status, report = answer(capsys, "reproduce", str(trial), "--to", place)
    assert (status, report["verdict"]) == (0, "reproduced")


def test_without_git_all_files_are_kept(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.root.parent))
    shutil.rmtree(project.root / ".git")
    project.train("a")
    (project.root / "model.py").write_text("")
    assert answer(capsys, "reproduce", "a")[0] == 0


def test_a_trial_of_an_earlier_version(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    git(project.root, "add", "words.txt")
    project.commit()
    project.edit("model.py", "SCALE = 2", "SCALE = 3")
    trial = project.train("a")
    for name in ("source.zip", "environment.json"):  # which it did not write
        (trial / name).unlink()
    status, report = answer(capsys, "reproduce", "a")
    assert (status, report["verdict"], report["differences"]) == (0, "reproduced", [])
    assert len(report["notes"]) == 2
    change_json(trial / "trial.json", "software", "torch", value="1.0")
    culprit = answer(capsys, "reproduce", "a", "--dry-run")[1]["culprit"]
    assert (culprit["kind"], culprit["name"], culprit["a"]) == ("environment", "torch", "1.0")


def test_data_that_are_not_here_are_left_to_the_run(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.train("a")
    (project.root / "data" / "numbers.txt").unlink()
    status, report = answer(capsys, "reproduce", "a")
    assert (status, report["verdict"]) == (1, "failed")  # this one can't fetch
    assert "numbers.txt is not here" in report["notes"][0]


def test_a_dry_run_leaves_nothing(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.train("a")
    status, report = answer(capsys, "reproduce", "a", "--dry-run")
    assert (status, report["verdict"], report["folder"]) == (0, "same origin", None)
    assert not (project.root / "runs/.reproduced").exists()


def test_an_interrupted_run_is_gone_on_with(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.train("a")
    monkeypatch.setenv("PRETENDED_STATUS", "75")
    assert main(["reproduce", "a"]) == 75
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    monkeypatch.setenv("PRETENDED_STATUS", "1")
    assert answer(capsys, "reproduce", "a")[1]["verdict"] == "failed"
    monkeypatch.delenv("PRETENDED_STATUS")
    status, report = answer(capsys, "reproduce", "a")
    assert (status, Path(report["folder"]).name) == (0, "a")


# --- one thing differs


def test_one_byte_of_data(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.train("a")
    project.edit("data/numbers.txt", "3", "4")
    status, report = answer(capsys, "reproduce", "a")
    assert (status, report["verdict"]) == (1, "stopped")
    assert (report["culprit"]["kind"], report["culprit"]["name"]) == ("data", "numbers.txt")
    assert not (Path(report["folder"]) / "runs").exists()
    project.edit("data/numbers.txt", "4", "45")
    status, report = answer(capsys, "reproduce", "a", "--anyway")
    assert (status, report["verdict"]) == (1, "differs")
    kinds = [(each["kind"], each["name"]) for each in report["differences"]]
    assert kinds == [("data", "numbers.txt"), ("metric", "train/loss at step 0")]
    values = [float(report["differences"][1][side]) for side in ("a", "b")]
    assert values[1] - values[0] == 1  # one letter more


def test_one_package(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    trial = project.train("a")
    change_json(trial / "environment.json", "packages", "numpy", value="1.0")
    status, report = answer(capsys, "reproduce", "a")
    assert (status, report["verdict"]) == (0, "reproduced")  # told of, and run all the same
    (only,) = report["differences"]
    assert (only["kind"], only["name"], only["a"]) == ("environment", "numpy", "1.0")
    assert any("pip install -r" in note for note in report["notes"])
    table = (trial / "metrics.csv").read_text().splitlines()
    torn = table[2].split(",")
    (trial / "metrics.csv").write_text("\n".join([*table[:2], f"1,7,{torn[2]}", table[3], ""]))
    status, report = answer(capsys, "reproduce", "a")
    assert (status, report["verdict"], report["culprit"]["name"]) == (1, "differs", "numpy")
    assert report["differences"][1]["name"] == "train/loss at step 1"
    assert report["differences"][1]["a"] == "7"
    assert main(["reproduce", "a"]) == 1
    assert "compared): environment: numpy: 1.0 | " in capsys.readouterr().out


def change_source(trial: Path, name: str, old: bytes, new: bytes) -> None:
    """Change one file that a trial's folder keeps."""
    with zipfile.ZipFile(trial / "source.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert old in members[f"files/{name}"]
    members[f"files/{name}"] = members[f"files/{name}"].replace(old, new)
    with zipfile.ZipFile(trial / "source.zip", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def change_package(trial: Path, *names: str) -> None:
    for name in names:
        change_json(trial / "environment.json", "packages", name, value="1.0")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a byte of data": (
        lambda trial: (trial.parents[2] / "data" / "numbers.txt").write_text("1 2 4") and None,
        "data: numbers.txt: sha256 ",
    ),
    "a setting": (
        lambda trial: change_setting(trial, "optimizer", "lr", 0.25),
        "setting: optimizer.lr: 0.5 | 0.25",
    ),
    "a package": (
        lambda trial: change_package(trial, "pyyaml"),
        "environment: pyyaml: 1.0 | ",
    ),
    "a line of code": (
        lambda trial: change_source(trial, "model.py", b"SCALE = 3", b"SCALE = 4"),
        "code: model.py: sha256 ",
    ),
    "an untracked file": (
        lambda trial: change_source(trial, "words.txt", b"table", b"cable"),
        "code: words.txt: sha256 ",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_one_thing_that_was_changed_is_named(
    project: Project, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    change, culprit = CHANGES[what]
    project.edit("model.py", "SCALE = 2", "SCALE = 3")
    trial = project.train("a")
    change(trial)
    assert main(["reproduce", "a", "--dry-run"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"differs: {culprit}")
    if "package" not in what:  # of which it is told, and run all the same
        status, report = answer(capsys, "reproduce", "a")
        assert (status, report["verdict"], len(report["differences"])) == (1, "stopped", 1)


def test_packages_that_matter_most_are_named_first(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = project.train("a")  # whose trainer.py imports yaml
    change_package(trial, "aiohttp", "pyyaml", "wandb", "numpy", "torch")
    report = answer(capsys, "reproduce", "a", "--dry-run")[1]
    names = [each["name"] for each in report["differences"]]
    assert names == ["torch", "numpy", "pyyaml", "aiohttp", "wandb"]


def test_code_that_holds_a_key_is_taken_from_the_project_while_it_is_the_same(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.edit("model.py", "SCALE = 2", f"SCALE = 2\nKEY = '{NEW}'")
    trial = project.train("a")
    with zipfile.ZipFile(trial / "source.zip") as archive:
        assert not any(NEW.encode() in archive.read(name) for name in archive.namelist())
    assert answer(capsys, "reproduce", "a")[0] == 0
    project.edit("model.py", "SCALE = 2", "SCALE = 3")
    status, report = answer(capsys, "reproduce", "a")
    assert (status, report["culprit"]["name"]) == (1, "model.py")
    assert "holds a key" in report["culprit"]["a"]
    assert NEW not in json.dumps(report)


# --- data that are fetched anew


def test_data_of_a_manifest_are_fetched_anew(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest knows no digest, so that only the comparison can name what has changed."""
    online(monkeypatch)
    with FaultServer() as server:
        server.add("numbers.txt", b"1 2 3")
        project.edit("trainer.py", *MANIFEST)
        source = {"files": [{"urls": [server.url("numbers.txt")]}]}
        (project.root / "numbers.yaml").write_text(json.dumps(source))
        project.train("a")
        assert len(server.requests) == 1
        (project.root / "data" / "numbers" / "numbers.txt").write_text("edited since")
        status, report = answer(capsys, "reproduce", "a", "--fetch")
        assert (status, report["verdict"], report["differences"]) == (0, "reproduced", [])
        fetched = Path(report["folder"]) / "data" / "numbers" / "numbers.txt"
        assert fetched.read_text() == "1 2 3"
        assert len(server.requests) == 2
        server.add("numbers.txt", b"1 2 34", etag='"v2"')
        status, report = answer(capsys, "reproduce", "a", "--fetch")
    assert (status, report["verdict"]) == (1, "differs")
    kinds = [(each["kind"], each["name"]) for each in report["differences"]]
    assert kinds == [("data", "numbers/numbers.txt"), ("metric", "train/loss at step 0")]


# --- two trials


@pytest.mark.parametrize(
    ("file", "old", "new", "culprit"),
    [
        ("model.py", "SCALE = 2", "SCALE = 3", "code: model.py:3: SCALE = 2 | SCALE = 3"),
        ("words.txt", "table", "cable", "code: words.txt:1: a table of words | a cable of words"),
        ("data/numbers.txt", "3", "34", "data: numbers.txt: sha256 "),
    ],
)
def test_diff_names_what_differs(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    file: str,
    old: str,
    new: str,
    culprit: str,
) -> None:
    project.train("a")
    project.edit(file, old, new)
    project.train("b")
    status, report = answer(capsys, "diff", "a", "b")
    assert (status, report["equal"]) == (1, False)
    first = report["differences"][0]
    shown = f"{first['kind']}: {first['name']}: {first['a']} | {first['b']}"
    assert shown.startswith(culprit)
    kinds = [each["kind"] for each in report["differences"]]
    assert kinds == ([first["kind"], "metric"] if file != "words.txt" else ["code"])


def test_diff_of_settings_packages_and_metrics(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.train("a")
    again = project.train("b")
    assert main(["diff", "a", "b"]) == 0
    assert capsys.readouterr().out.startswith("the same: code, settings, environment, data; 3 rows")
    change_json(again / "environment.json", "packages", "numpy", value="1.0")
    project.train("c", lr=1.5)
    assert answer(capsys, "diff", "b", "c")[1]["metrics"] == {
        "epoch": {"a": 1, "b": 1},
        "train/loss": {"a": 22.0, "b": 24.0},
    }
    names = [each["name"] for each in answer(capsys, "diff", "b", "c")[1]["differences"]]
    assert names == ["optimizer.lr", "numpy", "train/loss at step 0"]
    assert main(["diff", "b", "c"]) == 1
    assert "optimizer.lr" in capsys.readouterr().out


# --- bad input


def test_what_can_not_be_reproduced_is_one_line(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = project.train("first")
    assert "did you mean 'first'?" in line(capsys, "reproduce", "firt")
    assert "holds no trial" in line(capsys, "reproduce", str(tmp_path))
    assert "own folder" in line(capsys, "reproduce", "first", "--to", f"{trial}/again")
    assert "is not empty" in line(capsys, "reproduce", "first", "--to", str(project.root / "conf"))
    assert "--python /no/python" in line(capsys, "reproduce", "first", "--python", "/no/python")
    for state, word in (("interrupted", "is interrupted"), ("pruned", "before its time")):
        change_json(trial / "trial.json", "state", value=state)
        assert word in line(capsys, "reproduce", "first")
    change_json(trial / "trial.json", "state", value="done")
    change_json(trial / "trial.json", "sha", value="0123456789" * 4)
    assert "its commit 012345678901 is not in" in line(capsys, "reproduce", "first")
    (trial / "source.zip").write_bytes(b"torn")
    assert "source.zip: is damaged" in line(capsys, "reproduce", "first")
    (trial / "source.zip").unlink()
    change_json(trial / "trial.json", "sha", value=None)
    assert "its code was not kept" in line(capsys, "reproduce", "first")
    assert not list((project.root / "runs/.reproduced").glob("*/*/runs"))
