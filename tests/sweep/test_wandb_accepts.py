"""`wandb sweep` takes our files, our extensions included: the client and the schema are asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mlmodeldev.settings.identity import identity
from mlmodeldev.settings.overrides import parse_overrides
from mlmodeldev.sweep import load
from mlmodeldev.sweep.invocation import MACROS, wandb_macros
from mlmodeldev.sweep.starter import _write_parameters

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCHEMA = json.loads((HERE / "wandb_answers.json").read_text())["schema"]


@pytest.mark.parametrize("path", sorted((ROOT / "sweep").glob("*.yaml")), ids=lambda p: p.name)
def test_the_client_takes_the_sweeps_that_come_along(path):
    from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
    from wandb.sdk.launch.sweeps.utils import load_sweep_config

    config = load_sweep_config(str(path))
    filled = _validate_config_and_fill_distribution(config)
    assert json.loads(json.dumps(filled)) == filled
    inferred = {p.name: p.distribution for p in load(path).definition.parameters}
    for name, spec in filled["parameters"].items():
        assert spec.get("distribution", inferred[name]) == inferred[name]
    # Only these top-level keys, and ours under controller alone, pass W&B's published schema.
    assert set(config) <= {
        *("program", "method", "metric", "parameters", "controller", "command"),
        *("run_cap", "early_terminate", "name", "description"),
    }


def test_wandbs_schema_leaves_one_place_for_ours():
    assert SCHEMA["under controller"] == []
    assert SCHEMA["a tie"] == []
    assert SCHEMA["a top-level key of ours"] != []
    assert SCHEMA["a field of ours"] != []


def test_our_macros_are_those_of_the_client():
    _, argument_forms = wandb_macros()
    made = set(argument_forms({"args": {"a": {"value": 1}}})) - {"args_dict"}
    assert made == set(MACROS) - {"env", "interpreter", "program", "args_json_file"}


def test_the_clients_private_functions_that_we_call_are_still_there(monkeypatch):
    """`wandb_macros` and the file of values are all that we take from W&B's inside."""
    monkeypatch.setenv("PLACE", "here")
    fill_environment, argument_forms = wandb_macros()
    assert fill_environment(["${envvar:PLACE}", "${args}"]) == ["here", "${args}"]
    forms = argument_forms({"args": {"a": {"value": None}, "b": {"value": False}}})
    assert forms["args"] == ["--a=None", "--b=False"]
    assert forms["args_no_hyphens"] == ["a=None", "b=False"]


@pytest.mark.parametrize("params", [{}, {"b": None, "a": [1, "é"], "c": {"x": 1e-5}}])
def test_the_file_of_values_is_the_clients(params, tmp_path):
    from wandb.sdk.lib.config_util import dict_from_config_file, save_config_file_from_dict

    wrapped = {name: {"value": value} for name, value in params.items()}
    save_config_file_from_dict(str(tmp_path / "theirs.yaml"), wrapped)
    ours = _write_parameters(tmp_path, params)
    assert ours.read_text() == (tmp_path / "theirs.yaml").read_text()
    assert (dict_from_config_file(str(ours)) or {}) == params


@pytest.mark.parametrize("name", ["config.yaml", "random.yaml"])
def test_a_trial_started_by_the_client_has_our_identity(name):
    _, argument_forms = wandb_macros()
    for trial in load(ROOT / "sweep" / name).trials(count=8):
        sent = json.loads(json.dumps(trial.overrides))
        handed = argument_forms({"args": {k: {"value": v} for k, v in sent.items()}})
        assert identity(parse_overrides(handed["args_no_hyphens"])) == trial.id
        assert identity(json.loads(handed["args_json"][0])) == trial.id


def test_a_tie_resolves_to_one_identity_under_the_client_too(tmp_path):
    path = tmp_path / "sweep.yaml"
    config = {"a": {"values": [64]}, "b": {"value": "${a}"}}
    path.write_text(yaml.safe_dump({"method": "grid", "parameters": config}))
    (trial,) = load(path).trials()
    assert trial.overrides == {"a": 64, "b": 64}
    assert identity(parse_overrides(["a=64", "b=${a}"])) == trial.id
