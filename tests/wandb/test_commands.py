"""Sweeps whose ``command`` or ``program`` is not ours: our agent runs what they say.

What a macro stands for is taken from W&B's documentation of sweep configurations.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from mlmodeldev.errors import UsageError
from mlmodeldev.sweep.invocation import Invocation, Kind
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.sweep.starter import Starter, starter
from mlmodeldev.tracking.wandb_stop import NOTE_VARIABLE
from mlmodeldev.trial.task import TrialTask
from tests.wandb.conftest import Client

PARAMS = {"lr": 0.1, "big": True, "off": False, "name": "a b"}
PROGRAM = """
import json, os, sys
import wandb
if "--x=2" in sys.argv:
    sys.exit("two is refused")
with wandb.init() as run:
    run.log({"score": run.config["x"] * 10})
    print(json.dumps([sys.argv[1:], dict(run.config), os.environ["MARK"], run.sweep_id]))
"""


def made_starter(config: dict, fixed: list[str]) -> Starter | None:
    served = ServedSweep(config, "sweep")
    return starter(served.invocation, served.call, fixed)


def line(folder: Path, command: list[str], program: str = "other.py", **config) -> list[str]:
    """The command line of a trial with the parameters above."""
    start = made_starter({"program": program, "command": command, **config}, [])
    assert start
    work = TrialTask(
        "r1", folder, ["artefacts.trial=t", "lr=0.1"], environment={NOTE_VARIABLE: "n"}
    )
    made = start(work, PARAMS)
    assert made.command
    assert made.environment["WANDB_SWEEP_PARAM_PATH"] == f"{folder}/wandb-parameters.yaml"
    return list(made.command)


@pytest.mark.parametrize(
    ("macro", "expected"),
    [
        ("${env}", ["/usr/bin/env"]),
        ("${interpreter}", [sys.executable]),
        ("${program}", ["other.py"]),
        ("${args}", ["--lr=0.1", "--big=True", "--off=False", "--name=a b"]),
        ("${args_no_hyphens}", ["lr=0.1", "big=True", "off=False", "name=a b"]),
        ("${args_no_boolean_flags}", ["--lr=0.1", "--big", "--name=a b"]),
        ("${args_json}", ['{"lr": 0.1, "big": true, "off": false, "name": "a b"}']),
        ("${args_json_file}", ["FOLDER/wandb-parameters.json"]),
        ("${envvar:PLACE}", ["here"]),
        ("--at=${envvar:PLACE}/${envvar:NOWHERE}", ["--at=here/NOWHERE"]),
        ("--plain", ["--plain"]),
    ],
)
def test_a_macro_stands_for_what_wandb_says(macro, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    command = line(tmp_path, ["begin", macro, "end"])
    inner = [each.replace("FOLDER", str(tmp_path)) for each in expected]
    assert command == ["begin", *inner, "end"]
    assert json.loads((tmp_path / "wandb-parameters.json").read_text()) == PARAMS
    kept = yaml.safe_load((tmp_path / "wandb-parameters.yaml").read_text())
    assert {k: v["value"] for k, v in kept.items() if k != "wandb_version"} == PARAMS


@pytest.mark.parametrize(
    ("command", "program", "kind", "fixed"),
    [
        ("${env} ${interpreter} ${program} ${args_no_hyphens}", "trainer.py", Kind.FORK, {}),
        ("${interpreter} ${program} ${args_json}", "./trainer.py", Kind.FORK, {}),
        ("python ${program} ${args}", "trainer.py", Kind.FORK, {}),
        ("${interpreter} trainer.py ${args_no_hyphens}", None, Kind.FORK, {}),
        ("${interpreter} tests/slurm/slow_trainer.py ${args}", "trainer.py", Kind.FORK, {}),
        (
            "${interpreter} ${program} ${args_no_hyphens} optimizer.lr=1e-2 +a.b=x",
            *("trainer.py", Kind.FORK, {"optimizer.lr": 0.01, "a.b": "x"}),
        ),
        ("nice ${interpreter} ${program} ${args_no_hyphens}", "trainer.py", Kind.TRAINER, {}),
        (
            "torchrun --nproc_per_node=2 ${program} a=1 ${args_no_hyphens}",
            *("trainer.py", Kind.TRAINER, {"a": 1}),
        ),
        ("accelerate launch ${program} ${args_no_hyphens}", "trainer.py", Kind.TRAINER, {}),
        ("uv run ${program} ${args_no_hyphens}", "trainer.py", Kind.TRAINER, {}),
        ("${env} A=1 ${interpreter} ${program} ${args}", "trainer.py", Kind.TRAINER, {}),
        ("bash wrap.sh ${program} ${args_no_hyphens}", "trainer.py", Kind.TRAINER, {}),
        ("${interpreter} ${program}", "trainer.py", Kind.TRAINER, {}),
        ("${env} ${interpreter} ${program} ${args}", "other.py", Kind.FOREIGN, {}),
        ("${interpreter} other.py ${args} a=1", None, Kind.FOREIGN, {}),
        ("${interpreter} -m ${program} ${args}", "json.tool", Kind.FOREIGN, {}),
        ("bash ${program} ${args}", "run.sh", Kind.FOREIGN, {}),
    ],
)
def test_only_what_a_fork_does_as_well_is_a_fork(command, program, kind, fixed):
    invocation = Invocation.of(command.split(), program)
    assert (invocation.kind, invocation.settings) == (kind, fixed)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ('exec python trainer.py "$@"\n', Kind.TRAINER),
        ('for s in 0 1; do python trainer.py "$@" training.seed=$s; done\n', Kind.FOREIGN),
        ("echo $1\n", Kind.FOREIGN),
    ],
)
def test_a_script_is_the_trainer_where_it_hands_its_arguments_over(script, kind, tmp_path):
    (tmp_path / "wrap.sh").write_text(script)
    words = ["bash", "wrap.sh", "${args_no_hyphens}"]
    assert Invocation.of(words, "trainer.py", tmp_path).kind is kind
    assert Invocation.of(words, None, tmp_path).kind is Kind.FOREIGN


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("def train(settings): ...\n", Kind.FORK),
        ("def train(given: Settings, quiet: bool = False) -> None: ...\n", Kind.FORK),
        ("def train(given: 'mlmodeldev.settings.schema.Settings'): ...\n", Kind.FORK),
        ("from trainer import train\n", Kind.FORK),
        ("from pack.fitting import fit as train\n", Kind.FORK),
        ("from pack.fitting import other as train\n", Kind.FOREIGN),
        ("from elsewhere import train\n", Kind.FOREIGN),
        ("def train(config=None): ...\n", Kind.FOREIGN),  # as W&B's own examples
        ("def train(args, model, device, loader, optimizer, epoch): ...\n", Kind.FOREIGN),
        ("def train(cfg: DictConfig): ...\n", Kind.FOREIGN),
        ("def train(settings, model): ...\n", Kind.FOREIGN),
        ("def train(settings, *, model): ...\n", Kind.FOREIGN),
        ("def train(): ...\n", Kind.FOREIGN),
        ("class Trainer:\n    def train(self, settings): ...\n", Kind.FOREIGN),
        ("def train(settings:\n", Kind.FOREIGN),
    ],
)
def test_a_trainer_is_what_has_a_function_that_takes_settings(source, kind, tmp_path):
    """Many programs of others have a function ``train``."""
    (tmp_path / "trainer.py").write_text("def train(settings: Settings) -> Result: ...\n")
    (tmp_path / "pack").mkdir()
    text = "def fit(settings): ...\ndef other(model, loader): ...\n"
    (tmp_path / "pack" / "fitting.py").write_text(text)
    (tmp_path / "main.py").write_text(source)
    command = ["${interpreter}", "${program}", "${args}"]
    assert Invocation.of(command, "main.py", tmp_path).kind is kind


def test_the_trainer_learns_where_its_trial_lies(tmp_path):
    command = line(tmp_path, ["nice", "${interpreter}", "${program}", "${args_json}"], "trainer.py")
    assert command[:3] == ["nice", sys.executable, "trainer.py"]
    assert command[3:] == [
        *("lr=0.1", "big=true", "off=false", "name='a b'"),
        "artefacts.trial=t",
    ], "and lr only once"


@pytest.mark.parametrize(
    ("config", "fixed", "message"),
    [
        ({"command": ["${interpreter}", "${progam}"]}, [], "did you mean 'program'"),
        ({"program": "other.py"}, ["training.devices=2"], "are for trainer.py, not other.py"),
    ],
)
def test_what_cannot_be_run_is_one_error(config, fixed, message):
    with pytest.raises(UsageError, match=message):
        made_starter(config, fixed)


@pytest.mark.slow
def test_our_agent_runs_a_foreign_program_and_tells_its_failures(client: Client):
    program = client.folder / "other.py"
    program.write_text(PROGRAM)
    path = client.sweep(
        {"x": {"values": [1, 2]}},
        program=str(program),
        command=["${env}", "MARK=${envvar:PLACE}", "${interpreter}", "${program}", "${args}"],
    )
    name = path.rpartition("/")[2]
    short = ("-p", client.project, name, "--count", "2", f"artefacts.runs_dir={client.runs_dir}")
    agent = client.start(sys.executable, "-m", "mlmodeldev.slurm.agent", *short, PLACE="here")
    assert client.end(agent) == 1, client.output()
    records = [json.loads(f.read_text()) for f in client.runs_dir.glob(f"{name}/*/trial.json")]
    by_run = {record["wandb_id"]: record for record in records}
    run = next(run for run in client.runs if run.ends)
    assert run.ends == [("finished", 0)]
    assert (run.sweep, run.values("score")) == (name, [10])
    assert by_run.pop(run.name)["state"] == "done"
    (failed,) = by_run.values()
    assert (failed["state"], failed["reason"]) == ("failed", "exit status 1")
    printed = next(text for text in client.output().splitlines() if '"here"' in text)
    arguments, config, _, sweep = json.loads(printed)
    assert ("--x=1" in arguments, config["x"], sweep) == (True, 1, name)
    assert "1 trials ended well, 1 failed" in client.output()


@pytest.mark.slow
def test_our_agent_keeps_the_rules_of_the_file_under_a_server_that_has_none(client: Client):
    program = client.folder / "quick.py"
    program.write_text("import sys; print(sys.argv[1:])\n")
    path = client.sweep(
        {"a": {"values": [1, 2, 3]}, "b": {"values": [1, 2]}, "c": {"value": "${a}"}},
        program=str(program),
        command=["${interpreter}", "${program}", "${args_no_hyphens}"],
        controller={
            "type": "cloud",
            "constraints": ["a < 3 or b == 1"],
            "conditions": {"b": "a > 1"},
        },
    )
    agent = client.agent(path, f"artefacts.runs_dir={client.runs_dir}")
    assert client.end(agent) == 0, client.output()
    printed = [file.read_text() for file in client.runs_dir.glob("*/*/log.txt")]
    points = {tuple(word for word in eval(text) if word[1] == "=") for text in printed}
    assert points == {
        ("a=1", "c=1"),
        *(("a=2", f"b={b}", "c=2") for b in (1, 2)),
        ("a=3", "b=1", "c=3"),
    }
    assert len(printed) == 4
    assert client.output().count("is no trial of the sweep's file") == 2
