"""A sweep file means one thing: what its command says is run, wherever its trials come from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import refusal
from mlmodeldev.slurm.agent_source import AgentSource
from mlmodeldev.slurm.command_line import main
from mlmodeldev.sweep import load
from mlmodeldev.sweep.__main__ import main as sweep_main
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.tracking.sweep_commands import Command
from mlmodeldev.tracking.wandb_api import RemoteSweep, split_path

ROOT = Path(__file__).resolve().parents[2]
HEAD = "# Command: x. Expected best value: 1. Cost: 1\nname: one\nmethod: grid\n"
METRIC = "metric: {name: val/accuracy, goal: maximize}\n"
LR = "parameters: {optimizer.lr: {values: [0.001, 0.003]}}\n"
TRAINER = f"{HEAD}{METRIC}program: trainer.py\n{LR}"


@pytest.fixture
def lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that plans a sweep file and gives the trials and their command lines."""

    def plan(text: str) -> tuple[list[dict[str, Any]], list[list[str]]]:
        file = tmp_path / "one.yaml"
        file.write_text(text)
        (tmp_path / "prog.py").write_text("")
        assert sweep_main(["check", str(file)], settings=refusal) == 0
        capsys.readouterr()
        words = [f"artefacts.runs_dir={tmp_path}/runs", "cluster=local", "--sweep", str(file)]
        assert main(["plan", "--json", *words]) == 0, capsys.readouterr().err
        result = json.loads(capsys.readouterr().out)
        return result["trials"], [shlex.split(line) for line in result["script"].splitlines()]

    return plan


def test_settings_in_the_command_are_part_of_each_trial(lines):
    command = "command: ['${interpreter}', '${program}', '${args_no_hyphens}', training.max_epochs="
    trials, script = lines(f"{TRAINER}{command}1]\n")
    assert [trial["overrides"]["training.max_epochs"] for trial in trials] == [1, 1]
    assert all("training.max_epochs=1" in line for line in script)
    others, _ = lines(f"{TRAINER}{command}2]\n")
    assert {t["id"] for t in trials}.isdisjoint({t["id"] for t in others})


@pytest.mark.parametrize(
    "wrapper",
    ["nice -n 5 python", "torchrun --nproc_per_node=2", "accelerate launch", "uv run", "bash w.sh"],
)
def test_a_wrapper_is_run_and_its_trial_knows_its_folder(wrapper, lines, tmp_path):
    (tmp_path / "w.sh").touch()
    own = wrapper.replace("w.sh", f"{tmp_path}/w.sh").split()
    words = [*own, "${program}", "training.max_epochs=1", "${args_no_hyphens}"]
    trials, script = lines(TRAINER + yaml.safe_dump({"command": words}))
    for trial, line in zip(trials, script, strict=True):
        begin = line.index(str(ROOT / "trainer.py"))
        assert [Path(word).name for word in line[:begin]] == wrapper.split()
        assert line[begin + 1 : begin + 3] == [
            "training.max_epochs=1",
            f"optimizer.lr={trial['overrides']['optimizer.lr']}",
        ]
        assert f"artefacts.trial={trial['id']}" in line


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("optimizer.lr=0.1", "sets optimizer.lr, which is a parameter of the sweep"),
        ("optimizer.lrr=0.1", "optimizer.lrr: no such setting"),
        ("training.seed=1,2", "one trial needs one"),
    ],
)
def test_settings_that_can_not_be_are_one_error(item, message, tmp_path, capsys):
    file = tmp_path / "one.yaml"
    words = ["${interpreter}", "${program}", "${args_no_hyphens}", item]
    file.write_text(TRAINER + yaml.safe_dump({"command": words}))
    assert sweep_main(["check", str(file)], settings=refusal) == 2
    assert message in capsys.readouterr().out
    assert main(["plan", "--sweep", str(file), "cluster=local"]) == 2
    assert message in capsys.readouterr().err


def test_without_a_program_the_command_is_run(lines, tmp_path):
    words = ["${interpreter}", str(tmp_path / "prog.py"), "${args_no_hyphens}"]
    _, script = lines(HEAD + METRIC + LR + yaml.safe_dump({"command": words}))
    assert [line[1:] for line in script] == [
        [f"{tmp_path}/prog.py", f"optimizer.lr={lr}"] for lr in (0.001, 0.003)
    ]


@pytest.mark.parametrize(
    ("words", "is_missing"),
    [
        (["${interpreter}", "PLACE/none.py"], True),
        (["${env}", "A=1", "python3", "-u", "none.py"], True),
        (["none.sh"], True),
        (["/bin/bash", "PLACE/none.sh", "python", "${program}"], True),
        (["nice", "-n", "5", "python3", "PLACE/prog.py"], False),
        (["python3", "-m", "none.py"], False),
        (["apptainer", "exec", "i.sif", "python", "/in/the/image.py"], False),
        (["bash", "-c", "cd elsewhere && python none.py"], False),
        (["python3", "PLACE/prog.py", "--out", "none.py"], False),
    ],
)
def test_a_script_that_only_the_command_names_must_be_there(words, is_missing, tmp_path, capsys):
    (tmp_path / "prog.py").touch()
    file = tmp_path / "one.yaml"
    own = [word.replace("PLACE", str(tmp_path)) for word in words]
    file.write_text(HEAD + METRIC + LR + yaml.safe_dump({"command": [*own, "${args}"]}))
    status = 2 if is_missing else 0
    place = next((word for word in own if "none." in word), "")
    line = f"command: {ROOT / place}: no such file\n"
    assert sweep_main(["check", str(file)], settings=refusal) == status
    assert (line in capsys.readouterr().out) is is_missing
    assert main(["plan", "--sweep", str(file), "cluster=local"]) == status
    assert capsys.readouterr().err.endswith(line) is is_missing


def test_nested_parameters_reach_a_program_nested(lines, tmp_path):
    text = f"""{HEAD}program: {tmp_path}/prog.py
parameters:
  opt: {{parameters: {{name: {{values: [adam, sgd]}}, inner: {{parameters: {{m: {{value: 1}}}}}}}}}}
  opt.dotted: {{value: null}}
command: ["${{interpreter}}", "${{program}}", "${{args_json}}"]
"""
    _, script = lines(text)
    assert [json.loads(line[-1]) for line in script] == [
        {"opt": {"name": name, "inner": {"m": 1}}, "opt.dotted": None} for name in ("adam", "sgd")
    ]


def test_a_program_gets_values_that_hydra_can_not_write(lines, tmp_path):
    values = [{"layer 1": 64, "0": 2}, {"layer 1": 128, "0": 3}]
    config = {
        "program": f"{tmp_path}/prog.py",
        "parameters": {"head": {"values": values}},
        "command": ["${interpreter}", "${program}", "${args_json}"],
    }
    _, script = lines(HEAD + yaml.safe_dump(config))
    assert [json.loads(line[-1])["head"] for line in script] == values


@pytest.mark.parametrize(
    ("program", "command", "ends"),
    [
        ("PROG", ["${interpreter}", "${program}", "train", "-d"], ["PROG", "train", "-d"]),
        ("json.tool", ["${interpreter}", "-m", "${program}", "${args}"], ["json.tool", "--a=1"]),
        ("env", ["${program}", "${args_no_equals}"], ["env", "--a", "1"]),
    ],
)
def test_modules_and_console_scripts_are_programs(program, command, ends, lines, tmp_path):
    place = f"{tmp_path}/prog.py"
    config = {
        "program": program.replace("PROG", place),
        "parameters": {"a": {"value": 1}},
        "command": command,
        "metric": {"name": "val/acc"},
    }
    _, (line,) = lines(HEAD + yaml.safe_dump(config))
    assert line[-len(ends) :] == [word.replace("PROG", place) for word in ends]


def test_a_metric_is_any_programs_own(tmp_path, capsys):
    file = tmp_path / "one.yaml"
    (tmp_path / "prog.py").write_text("")
    file.write_text(
        f"{HEAD}program: {tmp_path}/prog.py\nmetric: {{name: x/y}}\nparameters: {{a: {{value: 1}}}}"
    )
    assert sweep_main(["check", str(file)], settings=refusal) == 0
    assert "metric.name" not in capsys.readouterr().out
    assert main(["plan", "--sweep", str(file), "cluster=local"]) == 0
    assert "metric.name" not in capsys.readouterr().err


# --- what a server hands out

RULES = {
    "method": "grid",
    "program": "trainer.py",
    "parameters": {
        "optimizer.name": {"values": ["sgd", "adamw"]},
        "optimizer.lr": {"values": [0.01, 1.0]},
        "optimizer.weight_decay": {"values": [0.0, 0.01]},
        "training.min_epochs": {"value": "${optimizer.lr}"},
    },
    "controller": {
        "type": "cloud",
        "constraints": ['optimizer.name == "sgd" or optimizer.lr < 1'],
        "conditions": {"optimizer.weight_decay": 'optimizer.name == "adamw"'},
    },
    "command": ["${interpreter}", "${program}", "${args_no_hyphens}", "training.max_epochs=2"],
}


def products() -> list[dict[str, Any]]:
    """What a server draws, which knows nothing of rules."""
    names, rates, decays = (
        RULES["parameters"][f"optimizer.{key}"]["values"] for key in ("name", "lr", "weight_decay")
    )
    return [
        {
            "optimizer.name": name,
            "optimizer.lr": rate,
            "optimizer.weight_decay": decay,
            "training.min_epochs": "${optimizer.lr}",
        }
        for name in names
        for rate in rates
        for decay in decays
    ]


def enumerated(tmp_path: Path) -> dict[str, dict[str, Any]]:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(RULES, sort_keys=False))
    return {trial.id: trial.overrides for trial in load(file).trials()}


class Served(RemoteSweep):
    """A server that hands out every point of the grid, and ends."""

    def register(self) -> str:
        return "agent1"

    def heartbeat(self, agent: str, running: Any) -> list[Command]:
        values = next(self.config["ahead"], None)
        if values is None:
            return [Command(type="exit")]
        args = {key: {"value": value} for key, value in values.items()}
        return [Command(type="run", run_id=f"run{id(values)}", args=args)]


def test_our_agent_runs_the_trials_of_the_file_and_no_others(tmp_path: Path):
    printed: list[str] = []
    config = {**RULES, "ahead": iter(products())}
    served = ServedSweep(RULES, "s")
    source = AgentSource(
        Served("e", "p", "s", config), tmp_path, print_line=printed.append, served=served
    )
    tasks = []
    while not source.why:
        if (task := source.take()) is not None and hasattr(task, "folder"):
            tasks.append(task)
    expected = enumerated(tmp_path)
    assert len(expected) == 4
    assert sorted(task.folder.name for task in tasks) == sorted(expected)
    for task in tasks:
        settings = expected[task.folder.name]
        assert f"training.min_epochs={settings['optimizer.lr']}" in task.overrides
        assert "training.max_epochs=2" in task.overrides
    assert sum("no trial of the sweep's file" in line for line in printed) == 4


def test_random_runs_of_one_point_share_it(tmp_path: Path):
    served = ServedSweep({**RULES, "method": "random", "a key of the server's": 9}, "s")
    taken = [served.call(values).id for values in products() if not served.refusal(values)]
    assert (len(taken), set(taken)) == (6, set(enumerated(tmp_path)))


def test_what_we_can_not_read_has_no_rules_to_lose():
    served = ServedSweep({"method": "gird", "parameters": {"a": {"values": [1]}}}, "s")
    assert served.refusal({"a": 1}) is None
    assert served.call({"a": {"b": 1}}).settings == {"a.b": 1}


@pytest.mark.parametrize("project", ["my project", "a+b", "R&D (old)", "ünïcode"])
def test_a_project_has_any_name_that_wandb_allows(project):
    assert split_path(f"team/{project}/ab12cd34") == ("team", project, "ab12cd34")


@pytest.mark.parametrize(
    "name", ["team/a#b/x", "team/a:b/x", "team/a%b/x", "a/b/c/d", "team/p/a b"]
)
def test_other_names_are_no_sweep(name):

    with pytest.raises(UsageError, match="is no sweep"):
        split_path(name)
