"""An agent's parameters: their types come from its file, whatever the command line says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.overrides import typed

GIVEN = {
    "training.gradient_clip_val": None,
    "optimizer.betas": [0.9, 0.95],
    "training.test": False,
    "logger.wandb.project": "a=b, c",
    "optimizer.lr": 1e-5,
}
AS_PYTHON = [f"{name}={value}" for name, value in GIVEN.items()]


@pytest.fixture
def file(tmp_path: Path, monkeypatch) -> Path:
    """What `wandb agent` leaves for its program."""
    file = tmp_path / "config-run1.yaml"
    wrapped = {name: {"value": value} for name, value in GIVEN.items()}
    file.write_text(yaml.safe_dump({"wandb_version": 1, **wrapped}))
    monkeypatch.setenv("WANDB_SWEEP_ID", "ab12cd34")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(file))
    return file


@pytest.mark.parametrize(
    "arguments",
    [
        AS_PYTHON,
        [f"--{each}" for each in AS_PYTHON],
        ['{"optimizer.lr": 1e-05}'],
        [f"+{each}" for each in AS_PYTHON],
        [f"++{each}" for each in AS_PYTHON],
        [word for name, value in GIVEN.items() for word in (f"--{name}", str(value))],
        [f"--{name}={value}" for name, value in GIVEN.items() if value is not False],
        ["wandb/sweep-ab12cd34/config-run1.json"],
    ],
    ids=[
        *("args_no_hyphens", "args", "args_json", "args_append_hydra", "args_override_hydra"),
        *("args_no_equals", "args_no_boolean_flags", "args_json_file"),
    ],
)
def test_each_form_of_the_command_gives_the_same_settings(file: Path, arguments):
    settings = compose_settings(typed([*arguments, "training.max_epochs=3"]))
    assert settings.training.gradient_clip_val is None
    assert settings.optimizer.betas == [0.9, 0.95]
    assert settings.training.test is False
    assert settings.logger.wandb is not None
    assert settings.logger.wandb.project == "a=b, c"
    assert settings.optimizer.lr == 1e-5
    assert settings.training.max_epochs == 3


def test_nested_parameters_are_settings_and_a_mapping_of_a_dotted_one_is_its_value(
    tmp_path: Path, file: Path
):
    nested = {"optimizer": {"lr": 0.1, "inner": {"deep": None}}, "model.table": {"a": 1}}
    wrapped = {name: {"value": value} for name, value in nested.items()}
    file.write_text(yaml.safe_dump({"wandb_version": 1, **wrapped}, sort_keys=False))
    expected = ["optimizer.lr=0.1", "optimizer.inner.deep=null", "model.table={a:1}"]
    assert typed(["{}"]) == expected
    assert typed([f"{name}={value}" for name, value in nested.items()]) == expected


def test_without_an_agent_arguments_stay_as_they_are(file: Path, monkeypatch):
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert typed(AS_PYTHON) == AS_PYTHON


@pytest.mark.parametrize("content", ["[1, 2]", "a: 1", "{", None])
def test_a_file_that_is_none_is_refused(file: Path, content):
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(UsageError, match=r"WANDB_SWEEP_PARAM_PATH=.*config-run1.yaml: is no file"):
        typed(AS_PYTHON)
