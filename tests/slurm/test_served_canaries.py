"""Values that a server gives a run: none names code, deletes settings or reaches a shell.

The agent on a node and the bridge on the login node take them by the same rules.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.overrides import parse_overrides, shell_text
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.sweep.starter import starter
from mlmodeldev.tracking.sweep_commands import Command, values_of
from mlmodeldev.trial.task import TrialResult
from tests.conftest import ROOT
from tests.slurm.test_agent_source import GOOD, Sweep, both, run, source_of, take

__all__ = ["source_of"]

CODE = {"_target_": "subprocess.Popen", "args": ["touch", "canary"]}
OTHER_NAMES = {
    "a class": ("model._target_", "subprocess.Popen"),
    "a class inside": ("+callbacks.x", CODE),
    "an object as a model": ("model", CODE),
    "a deletion": ("~training", None),
    "an addition": ("+model.act", "relu"),
    "forced": ("++data", CODE),
    "hydra's folder": ("hydra.run.dir", "/tmp/elsewhere"),
    "hydra's variables": ("hydra.job.env_set.LD_PRELOAD", "/tmp/x.so"),
    "hydra's launcher": ("hydra/launcher", "joblib"),
    "a search path": ("hydra.searchpath", ["file:///tmp"]),
    "an option": ("--config-dir", "/tmp"),
}
OTHER_VALUES = {
    "an object": CODE,
    "an object in a list": [1, [CODE]],
    "an object in a mapping": {"a": {"b": CODE}},
    "the environment": "${oc.env:WANDB_API_KEY}",
    "another setting": ["${artefacts.runs_dir}"],
    "deeper than any": json.loads("[" * 400 + "]" * 400),
}


def failed_record(source: Any) -> dict[str, Any]:
    records = [json.loads(file.read_text()) for file in source.folder.glob("*/trial.json")]
    (failed,) = (record for record in records if record["state"] == "failed")
    return failed


@both
@pytest.mark.parametrize(("name", "value"), OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_a_name_that_the_sweep_does_not_list_is_left_out(source_of, name, value):
    args = {**GOOD, name: {"value": value}}
    work = take(source_of(Sweep.of(run("r1", args))))
    own = [item for item in work.overrides if not item.startswith(("artefacts.", "logger."))]
    assert sorted(own) == ["model.hidden_size=8", "optimizer.lr=0.1"]


@both
@pytest.mark.parametrize(("name", "value"), OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_it_fails_the_run_of_a_sweep_that_lists_none(source_of, name, value):
    source = source_of(Sweep.of(run("r1", {name: {"value": value}}), parameters={}))
    assert take(source) is None
    assert (source.failed, source.why) == (1, "the sweep is over")
    assert "which the sweep's file does not list" in failed_record(source)["reason"]


@both
@pytest.mark.parametrize("value", OTHER_VALUES.values(), ids=OTHER_VALUES)
def test_a_value_that_is_more_than_a_value_fails_its_run_alone(source_of, value):
    args = {**GOOD, "model.hidden_size": {"value": value}}
    source = source_of(Sweep.of(run("bad", args), run("good", GOOD)))
    assert take(source).id == "good"
    assert source.failed == 1
    assert "which the sweep's file does not list" in failed_record(source)["reason"]


def test_nested_values_too(source_of):
    nested = {"model": {"parameters": {"act": {"values": ["relu"]}}}}
    args = {"model": {"value": {"act": CODE, "_target_": "os.system"}}}
    source = source_of(Sweep.of(run("r1", args), parameters=nested))
    assert take(source) is None
    assert "the server gives model.act which names code" in failed_record(source)["reason"]


def test_what_the_sweep_lists_may_be_given(source_of):
    listed = {
        "model._target_": {"values": ["mine.A", "mine.B"]},
        "+model.act": {"values": [{"_target_": "torch.nn.ReLU"}, {"_target_": "torch.nn.GELU"}]},
        "model.width": {"value": "${optimizer.lr}"},
    }
    args = {
        "model._target_": {"value": "mine.B"},
        "+model.act": {"value": {"_target_": "torch.nn.GELU"}},
        "model.width": {"value": "${optimizer.lr}"},
    }
    work = take(source_of(Sweep.of(run("r1", args), parameters=listed)))
    given = parse_overrides([i for i in work.overrides if i.lstrip("+").startswith("model")])
    assert given["model._target_"] == "mine.B"
    other = {**args, "model._target_": {"value": "mine.C"}}
    with pytest.raises(ValueError, match=r"gives model\._target_ which names code, which the"):
        values_of(Command(type="run", run_id="r2", args=other), listed)


SHELL = [
    *("$(touch canary)", "`touch canary`", "; touch canary", "a' ; touch canary ; '", "&& touch x"),
    *("a\ntouch canary\n", '" ; touch canary ; "', "$HOME", "${IFS}", "| tee canary", "> canary"),
    *("--config-dir=/tmp", "\\'; touch canary", "{a: b}", "!!python/object/apply:os.system [x]"),
]


def test_a_value_reaches_no_shell_and_arrives_as_it_is(source_of, tmp_path: Path, monkeypatch):
    """As settings of a trainer, as a line to be copied, and as arguments of another program."""
    monkeypatch.setenv("MLMODELDEV_PROJECT", str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    for number, text in enumerate(each for each in SHELL if "${" not in each):
        args = {"model.note": {"value": text}}
        source = source_of(Sweep.of(run(f"r{number}", args), parameters={}))
        work = take(source)
        source.report(work, TrialResult(0, "done", None, 1.0))
        assert parse_overrides(work.overrides)["model.note"] == text
        line = f"printf '%s\\0' {shell_text({'model.note': text})}"
        printed = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
        assert parse_overrides([printed.decode().rstrip("\0")]) == {"model.note": text}

        command = ["${interpreter}", "${program}", "${args}"]
        config = {"command": command, "program": str(tmp_path / "other.py")}
        sweep = Sweep.of(run(f"f{number}", args), parameters={}, **config)
        served = ServedSweep(sweep.config, "s")
        source = source_of(sweep, start=starter(served.invocation, served.call), served=served)
        work = take(source)
        done = subprocess.run(work.command, capture_output=True, text=True, check=True)
        source.report(work, TrialResult(0, "done", None, 1.0))
        assert json.loads(done.stdout) == [f"--model.note={text}"]
    assert not (tmp_path / "canary").exists()
    assert sorted(f.name for f in tmp_path.iterdir() if f.name != "s") == ["other.py"]


def test_the_folder_of_a_sweep_has_no_signs_of_a_shell():
    """It names the jobs, in the script that sbatch gets."""
    with pytest.raises(UsageError, match=r"^artefacts.sweep='\$\(touch canary\)': must match"):
        compose_settings(["artefacts.sweep='$(touch canary)'"], partial=True)
