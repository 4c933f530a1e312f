"""The stages of dvc.yaml: DVC runs what changed, and reads what a trial writes.

DVC is real, and so is the dvc.yaml that the command writes. Its commands are run for real once,
each in a process that is born in a moment; where DVC calls them, a stand-in for Python answers.
"""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from mlmodeldev.data.stages import write_stages
from mlmodeldev.project import PROJECT_VARIABLE
from mlmodeldev.template.init import create
from mlmodeldev.template.source import Answers, load_template
from tests.conftest import in_fork
from tests.data.lab import dvc, needs_dvc, run, set_environment, version

pytestmark = [pytest.mark.slow, pytest.mark.project]

SETTINGS = "conf/experiment/stages.yaml"
STAND_IN = """
import json, re, sys
from pathlib import Path

words, runs = sys.argv[1:], Path("runs/stages")
stage = "train" if words[0] == "trainer.py" else words[3]
with open("{calls}", "a") as file:
    file.write(stage + "\\n")
text = Path("conf/experiment/stages.yaml").read_text()
rate, data = (float(re.search(name + r": (\\S+)", text)[1]) for name in ("lr", "val_fraction"))
if stage == "train":
    assert json.loads((runs / "data.json").read_text()) == data
    (runs / "trial").mkdir()
    log = [{{"epoch": n, "train/loss": rate / n, "val/accuracy": rate}} for n in (1, 2)]
    (runs / "trial" / "log.json").write_text(json.dumps(log))
    rows = "".join(f"{{n}},{{n}},{{rate / (n + 1)}}\\n" for n in range(3))
    (runs / "trial" / "metrics.csv").write_text("epoch,step,train/loss\\n" + rows)
else:
    file = words[words.index({{"prepare": "--digests", "evaluate": "--metrics"}}[stage]) + 1]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(json.dumps(data if stage == "prepare" else {{"test/accuracy": rate}}))
"""


def make_project(folder):
    create(folder, load_template(), Answers("small", "local", "csv", None, "mlmodeldev"))
    return folder


def change(project, name, value):
    file = project / SETTINGS
    lines = file.read_text().splitlines(keepends=True)
    (at,) = [n for n, line in enumerate(lines) if line.startswith(f"  {name}: ")]
    lines[at] = f"  {name}: {value}\n"
    file.write_text("".join(lines))


@needs_dvc
def test_only_what_changed_runs_and_experiments_are_compared(tmp_path, monkeypatch):
    set_environment(monkeypatch.setenv, tmp_path)
    project = make_project(tmp_path / "project")
    run(project, "git", "init", "-q")
    calls = tmp_path / "calls"
    script, program = tmp_path / "stand_in.py", tmp_path / "bin" / "python"
    script.write_text(STAND_IN.format(calls=calls))
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {script} "$@"\n')
    program.chmod(0o755)

    def called(*command):
        """Run DVC; return the stages that it ran, and what it printed."""
        calls.write_text("")
        printed = dvc(project, *command)
        return calls.read_text().split(), printed

    version(project, "--stages")
    run(project, "git", "add", "-A")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert called("repro")[0] == ["prepare", "train", "evaluate"]
    assert called("repro")[0] == []
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", "Stages")
    change(project, "lr", "0.5")
    assert called("repro")[0] == ["train", "evaluate"]
    ((_, metrics),) = json.loads(dvc(project, "metrics", "diff", "--json")).items()
    assert metrics["test/accuracy"] == {"old": 0.002, "new": 0.5, "diff": 0.498}
    drawn = json.loads(dvc(project, "plots", "diff", "HEAD", "--json"))["data"]
    assert set(drawn) == {f"runs/stages/trial/{name}" for name in ("log.json", "metrics.csv")}
    ((curve,),) = [drawn["runs/stages/trial/log.json"]]
    points = curve["content"]["data"]["values"]
    losses = [(p["rev"], p["epoch"], p["train/loss"]) for p in points if p["field"] == "train/loss"]
    assert {("workspace", 1, 0.5), ("workspace", 2, 0.25), ("HEAD", 1, 0.002)} <= set(losses)

    run(project, "git", "commit", "-qam", "Faster")
    assert called("exp", "run", "-n", "slow", "-S", f"{SETTINGS}:optimizer.lr=0.25")[0] == [
        *("train", "evaluate")
    ]
    shown = dvc(project, "exp", "show", "--csv").splitlines()
    names = shown[0].split(",")
    lines = {line["Experiment"]: line for row in shown[1:] if (line := _line(names, row))}
    assert (lines["slow"]["test/accuracy"], lines["slow"]["optimizer.lr"]) == ("0.25", "0.25")


def _line(names, row):
    return dict(zip(names, row.split(","), strict=True))


def _run_stage(words, folder):
    """Do what a stage's command does, in this process."""
    import multiprocessing

    import torch

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)
    os.chdir(folder)
    os.environ[PROJECT_VARIABLE] = str(folder)
    if words[1] == "trainer.py":
        sys.argv = words[1:]
        runpy.run_path("trainer.py", run_name="__main__")
        return
    from mlmodeldev.cli import main

    assert words[:3] == ["python", "-m", "mlmodeldev"]
    assert main(words[3:]) == 0


def test_the_commands_of_the_stages(tmp_path):
    project = make_project(tmp_path / "project")
    here = Path.cwd()
    os.chdir(project)
    try:
        assert [str(file) for file in write_stages(project)] == ["dvc.yaml", SETTINGS]
    finally:
        os.chdir(here)
    change(project, "max_epochs", "1")
    small = {"hidden_size": 16, "num_layers": 1}
    more = {"model": small, "callbacks": {"cka": {"enabled": False}}}
    with (project / SETTINGS).open("a") as file:
        file.write(yaml.safe_dump({**more, "artefacts": {"rehearsal": False}}))
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        printed = tmp_path / f"{name}.txt"
        status = in_fork(printed, _run_stage, shlex.split(stage["cmd"]), project)
        assert status == 0, printed.read_text()
        for out in (*stage.get("outs", ()), *stage.get("metrics", ())):
            assert (project / out).exists(), out
        for dependency in stage["deps"]:
            assert (project / dependency).exists(), dependency
    trial = project / "runs" / "stages" / "trial"
    assert json.loads((trial / "trial.json").read_text())["state"] == "done"
    assert not (trial / "evaluations").exists()  # the trial is an input of its evaluation
    measured = json.loads((project / "runs" / "stages" / "metrics.json").read_text())
    (entry,) = json.loads((trial / "log.json").read_text())
    assert measured["val/accuracy"] == pytest.approx(entry["val/accuracy"])
    assert "test/accuracy" in measured
    curves = yaml.safe_load((project / "dvc.yaml").read_text())["plots"]
    for plot in curves:
        ((file, axes),) = plot.items()
        columns = entry if file.endswith(".json") else _header(project / file)
        assert {axes["x"], *axes["y"]} <= set(columns)
    shutil.rmtree(trial)


def _header(file):
    return file.read_text().splitlines()[0].split(",")
