"""A start against the trial's folder, when the code is another than before."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.training import trial_start
from mlmodeldev.trial.folder import TrialFolder

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own, outside of git."""
    place = tmp_path / "project"
    place.mkdir()
    shutil.copytree(ROOT / "conf", place / "conf")
    for name in ("trainer.py", "model.py", "datamodule.py"):
        shutil.copy(ROOT / name, place / name)
    monkeypatch.setenv("MLMODELDEV_PROJECT", str(place))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return place


@pytest.fixture
def start(project: Path, tmp_path: Path) -> Start:
    """Open the trial; it is ended again at once in a state, with a checkpoint or without."""

    def open_it(
        *overrides: str, end: str = "interrupted", step: int | None = 5
    ) -> tuple[Path, dict[str, Any]]:
        given = [f"artefacts.runs_dir={tmp_path}/runs", "artefacts.trial=a"]
        logger = () if any("logger=" in each for each in overrides) else ("logger=csv",)
        settings = compose_settings([*given, *logger, *overrides])
        path, begun = trial_start.open_trial(settings)
        if begun.get("done"):
            return path, begun
        folder = TrialFolder(path)
        folder.attempt, folder.token = begun["attempt"], begun["token"]
        if step is not None:
            torch.save({"step": step}, path / "checkpoints" / f"step-{step:010d}.ckpt")
        for name in ("last", "best") if end == "done" else ():
            (path / name).mkdir(exist_ok=True)
            (path / name / "training_state.json").write_text("{}")
        folder.finish(end, epoch=settings.training.max_epochs, metric={"value": 0.5})
        return path, begun

    return open_it


@pytest.mark.parametrize("name", ["mlflow", "clearml"])
def test_a_tracker_that_is_not_installed_leaves_no_folder(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    line = rf"^logger={name}: the package {name} is not installed; pip install '{name}>=\d\.\d+'$"
    with pytest.raises(UsageError, match=line):
        start(f"logger={name}")
    assert not (tmp_path / "runs").exists()


def edit(project: Path, name: str = "model.py") -> None:
    with (project / name).open("a") as file:
        file.write("\n# edited\n")


def record(path: Path) -> dict[str, Any]:
    return json.loads((path / "trial.json").read_text())


def test_the_record_names_the_code(start: Start) -> None:
    path, _ = start()
    assert list(record(path)["code"]) == ["datamodule.py", "model.py", "trainer.py"]


# --- done


def test_by_hand_an_edit_trains_anew_and_keeps_the_former(
    start: Start, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = start(end="done")
    assert start()[1]["done"]
    assert "done already (" in capsys.readouterr().out
    edit(project)
    _, begun = start(end="done", step=None)
    assert (begun["attempt"], begun["checkpoint"], begun["best"]) == (1, None, None)
    aside = path.with_name(".a.1")
    assert capsys.readouterr().out.splitlines() == [
        f"model.py: new code, so this trial begins anew; the former is {aside}"
    ]
    assert (record(aside)["state"], len(list(aside.glob("checkpoints/*")))) == ("done", 1)
    assert start()[1]["done"]


def test_by_hand_continue_lets_it_be_done(
    start: Start, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(end="done")
    edit(project)
    assert start("artefacts.changed_code=continue")[1]["done"]
    assert "done already; model.py has changed since (" in capsys.readouterr().out


@pytest.mark.parametrize("policy", ["refuse", "continue", "fresh"])
def test_a_sweeps_trial_stays_done(
    start: Start, project: Path, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    sweep = ("artefacts.sweep=s", f"artefacts.changed_code={policy}")
    path, _ = start(*sweep, end="done")
    edit(project, "datamodule.py")
    assert start(*sweep)[1]["done"]
    assert "done already; datamodule.py has changed since (" in capsys.readouterr().out
    assert record(path)["attempts"] == 1


def test_a_file_of_another_model_is_of_no_account(start: Start, project: Path) -> None:
    start(end="done")
    (project / "other.py").write_text("x = 1\n")
    assert start()[1]["done"]


def test_the_record_of_an_earlier_version_stays_done(
    start: Start, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = start(end="done")
    old = {k: v for k, v in record(path).items() if k != "code"}
    (path / "trial.json").write_text(json.dumps(old))
    edit(project)
    assert start()[1]["done"]
    note = "done already; model.py, datamodule.py or trainer.py has changed since ("
    assert note in capsys.readouterr().out


# --- to go on


@pytest.mark.parametrize("state", ["interrupted", "failed"])
@pytest.mark.parametrize("sweep", ["single", "s"])
def test_what_has_begun_is_refused_in_one_line(
    start: Start, project: Path, state: str, sweep: str
) -> None:
    path, _ = start(f"artefacts.sweep={sweep}", end=state)
    before = record(path)
    edit(project)
    edit(project, "datamodule.py")
    with pytest.raises(UsageError) as refused:
        start(f"artefacts.sweep={sweep}")
    line = str(refused.value)
    assert "\n" not in line
    assert f"{path}: datamodule.py, model.py has changed since this trial began" in line
    assert "artefacts.changed_code=continue" in line
    assert "artefacts.changed_code=fresh" in line
    assert record(path) == before


def test_a_longer_training_of_other_code_is_refused(start: Start, project: Path) -> None:
    sweep = "artefacts.sweep=s"
    start(sweep, end="done")
    edit(project)
    with pytest.raises(UsageError, match=r"model\.py has changed since this trial began"):
        start(sweep, "training.max_epochs=99")


def test_it_goes_on_where_that_is_set_and_both_codes_are_kept(
    start: Start, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = start()
    former = record(path)["code"]
    edit(project)
    capsys.readouterr()
    _, begun = start("artefacts.changed_code=continue")
    printed = capsys.readouterr()
    assert printed.out == "going on from step 5 (attempt 2)\n"
    assert printed.err.count("\n") == 1
    assert "warning: " in printed.err
    assert "model.py has changed since this trial began; going on" in printed.err
    assert begun["step"] == 5
    after = record(path)
    (earlier,) = after["earlier_code"]
    assert (earlier["attempt"], earlier["code"]) == (1, former)
    assert after["code"] != former
    start()  # the same code once more: no word
    assert capsys.readouterr().err == ""
    assert len(record(path)["earlier_code"]) == 1


def test_it_begins_anew_where_that_is_set(start: Start, project: Path) -> None:
    path, _ = start()
    edit(project)
    _, begun = start("artefacts.changed_code=fresh")
    assert (begun["attempt"], begun["checkpoint"]) == (1, None)
    assert record(path.with_name(".a.1"))["state"] == "interrupted"
    assert start("artefacts.changed_code=fresh")[1]["attempt"] == 2


def test_without_a_checkpoint_it_just_begins(
    start: Start, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = start(step=None)
    edit(project)
    assert start(step=None)[1]["attempt"] == 2
    assert capsys.readouterr() == ("", "")
    assert "earlier_code" not in record(path)


# --- each attempt's difference


def test_each_attempts_difference_is_kept(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    path = None
    for text in ("", "one\n", "one\n", "two\n", "", "", "three\n"):
        monkeypatch.setattr(trial_start, "changes", lambda code, text=text: text)
        path, _ = start()
    assert path is not None
    kept = {file.name: file.read_text() for file in path.glob("changes*.diff")}
    assert kept == {
        "changes-3.diff": "one\n",
        "changes-4.diff": "two\n",
        "changes.diff": "three\n",
    }
