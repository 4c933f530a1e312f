"""Trials of older code: marked by status, run anew by retry --changed, left alone by all else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.slurm import local
from mlmodeldev.slurm.command_line import main
from mlmodeldev.sweep import loads
from mlmodeldev.trial.code import code_digests

ROOT = Path(__file__).resolve().parents[2]
GRID = "name: g\nmethod: grid\nparameters: {optimizer.lr: {values: [0.1, 0.2, 0.3, 0.4]}}\n"
STATES = ("done", "pruned", "interrupted", "done")


class Sweep:
    """A project with a grid of four trials, the last of which an earlier version has run."""

    def __init__(self, place: Path) -> None:
        self.project, self.runs = place / "project", place / "runs"
        shutil.copytree(ROOT / "conf", self.project / "conf")
        for name in ("trainer.py", "model.py", "datamodule.py"):
            shutil.copy(ROOT / name, self.project / name)
        (self.project / "grid.yaml").write_text(GRID)
        groups = {
            "model": {"_target_": "model.DualEncoder"},
            "data": {"_target_": "datamodule.Digits"},
        }
        code = code_digests(groups, self.project)
        self.folders = [self.runs / "g" / trial.id for trial in loads(GRID).trials()]
        for folder, state in zip(self.folders, STATES, strict=True):
            (folder / "checkpoints").mkdir(parents=True)
            (folder / "checkpoints" / "step-0000000005.ckpt").touch()
            record = {"state": state, "metric": {"name": "val/accuracy", "value": 0.5}}
            named = {} if folder is self.folders[3] else {"code": code}
            (folder / "trial.json").write_text(json.dumps({**record, **named}))

    def call(self, command: str, *options: str) -> int:
        where = ["--sweep", str(self.project / "grid.yaml"), f"artefacts.runs_dir={self.runs}"]
        return main([command, *options, *where, "logger=csv"])

    def edit(self) -> None:
        with (self.project / "model.py").open("a") as file:
            file.write("\n# edited\n")


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    made = Sweep(tmp_path)
    monkeypatch.setenv("MLMODELDEV_PROJECT", str(made.project))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(made.project)
    return made


def older(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    capsys.readouterr()
    assert sweep.call("status", "--json") == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    return [trial.get("older_code") for trial in trials]


def test_status_marks_what_has_ended_with_older_code(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert older(sweep, capsys) == [[], [], None, None]
    sweep.call("status")
    assert "older code" not in capsys.readouterr().out
    sweep.edit()
    assert older(sweep, capsys) == [["model.py"], ["model.py"], None, None]
    sweep.call("status")
    out = capsys.readouterr().out
    assert "done, older code" in out
    assert "pruned, older code" in out
    assert "(2 with older code; retry --changed runs them anew)" in out


def test_retry_changed_runs_them_anew_and_keeps_the_former(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[list[tuple[str, str]]] = []

    def run_again(state: Any, entries: Any) -> int:
        runs.append([(entry.trial.id, entry.state) for entry in entries])
        return 0

    monkeypatch.setattr(local, "run_again", run_again)
    assert sweep.call("retry", "--changed") == 0
    sweep.edit()
    assert sweep.call("retry") == 0
    assert runs == [[], []], "nothing has changed, or nothing has failed"
    capsys.readouterr()
    assert sweep.call("retry", "--changed") == 0
    wanted = sweep.folders[:3]
    assert runs[2] == [(folder.name, "missing") for folder in wanted]
    err = capsys.readouterr().err
    for folder, state in zip(wanted, STATES, strict=False):
        aside = folder.with_name(f".{folder.name}.1")
        assert f"{folder.name}: the former is {aside}" in err
        assert json.loads((aside / "trial.json").read_text())["state"] == state
        assert not folder.exists()
    assert sweep.folders[3].is_dir()


def test_on_a_cluster_nothing_is_moved_before_it_is_submitted(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlmodeldev.errors import UsageError
    from mlmodeldev.slurm.commands import launch

    planned: list[Any] = []

    def plan(sweep_state: Any, only: Any = None) -> Any:
        planned.append((sorted(only), [entry.state for entry in sweep_state.entries]))
        raise UsageError("no room")

    sweep.edit()
    monkeypatch.setattr(launch, "slurm_is_here", lambda: True)
    monkeypatch.setattr(launch, "plan_on_cluster", plan)
    status = sweep.call("retry", "--changed", "--cluster", "generic")
    assert status == 2
    only = sorted(folder.name for folder in sweep.folders[:3])
    assert planned == [(only, ["missing", "missing", "missing", "done"])]
    assert all(folder.is_dir() for folder in sweep.folders)


def test_submit_says_what_could_not_go_on(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "run_here", lambda *_: 0)
    sweep.call("submit")
    assert "older code" not in capsys.readouterr().err
    sweep.edit()
    sweep.call("submit")
    line = f"begun with older code: {sweep.folders[2].name}; artefacts.changed_code=continue|fresh"
    assert line in capsys.readouterr().err
    sweep.call("submit", "artefacts.changed_code=continue")
    assert "begun with older code" not in capsys.readouterr().err
