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
    [AS_PYTHON, [f"--{each}" for each in AS_PYTHON], ['{"optimizer.lr": 1e-05}']],
    ids=["args_no_hyphens", "args", "args_json"],
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


def test_without_an_agent_arguments_stay_as_they_are(file: Path, monkeypatch):
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert typed(AS_PYTHON) == AS_PYTHON


@pytest.mark.parametrize("content", ["[1, 2]", "a: 1", "{", None])
def test_a_file_that_is_none_is_refused(file: Path, content):
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(UsageError, match=r"WANDB_SWEEP_PARAM_PATH=.*config-run1.yaml: is no file"):
        typed(AS_PYTHON)
