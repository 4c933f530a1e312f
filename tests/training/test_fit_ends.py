"""How a fit ends: exports of models that load partly, workers that are gone, errors of one line."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mlmodeldev
from mlmodeldev.training.fit_errors import refuse
from mlmodeldev.trial.checkpoint_values import read_checkpoint
from tests.training.interrupted import Place
from tests.training.test_plain_resume import outcome

BY_LOSS = ("training.monitor=loss", "training.mode=min")
BY_VALIDATION = ("training.monitor=val_loss", "training.mode=min")


@pytest.mark.parametrize("model", ["Partial", "PartialByStateDict"])
def test_a_model_that_loads_partly_is_exported_and_comes_back(model: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    settings = (*BY_VALIDATION, "callbacks.export.enabled=true", "training.max_epochs=2")
    whole = place.run("whole", model, "Both", *settings, "artefacts.rehearsal=true")
    assert whole.code == 0, whole.output
    at = ("training_step", 8)
    assert place.run("killed", model, "Both", *settings, at=at).code == -signal.SIGKILL
    again = place.run("killed", model, "Both", *settings)
    assert again.code == 0, again.output
    assert outcome(again) == outcome(whole)
    saved = read_checkpoint(whole.checkpoint)["state_dict"]
    assert set(saved) == {"net.weight", "net.bias"}
    for trial in (whole, again):
        loaded: Any = mlmodeldev.load(trial.folder / "last")
        assert torch.equal(loaded.net.weight, saved["net.weight"])
        assert (trial.folder / "best" / "model.safetensors").is_file()


def test_workers_of_loaders_that_were_made_anew_are_gone(tmp_path: Path) -> None:
    reloads = "training.trainer={reload_dataloaders_every_n_epochs: 1}"
    trial = Place(tmp_path).run("trial", "CountsWorkers", "KeepsWorkers", *BY_LOSS, reloads)
    assert trial.code == 0, trial.output
    counts = [line for line in trial.output.splitlines() if line.startswith("workers")]
    assert counts == ["workers 1"] * 3


def test_an_error_of_the_users_code_keeps_its_place(tmp_path: Path) -> None:
    """It says the same words as a checkpoint that does not fit."""
    trial = Place(tmp_path).run("trial", "LoadsWrongly", "Both", *BY_VALIDATION)
    assert trial.code == 1
    assert "holds weights of another model" not in trial.output
    assert "in on_fit_start" in trial.output
    assert trial.record["reason"].startswith("RuntimeError: Error(s) in loading state_dict for")


def test_only_what_restoring_raises_is_of_the_checkpoint() -> None:
    trainer: Any = None
    with pytest.raises(RuntimeError, match="loading state_dict") as raised:
        nn.Linear(2, 2).load_state_dict({"weight": torch.zeros(3, 3), "bias": torch.zeros(2)})
    assert isinstance(raised.value, RuntimeError)
    refuse(raised.value, trainer, Path("step-0000000005.ckpt"), way="")


@pytest.mark.parametrize("rehearsal", ["true", "false"])
def test_validations_further_apart_than_an_epoch_is_long(rehearsal: str, tmp_path: Path) -> None:
    interval = "training.trainer={val_check_interval: 1000}"
    rehearses = f"artefacts.rehearsal={rehearsal}"
    trial = Place(tmp_path).run("trial", "Linear", "Both", *BY_VALIDATION, interval, rehearses)
    assert trial.code == 2
    (line,) = [line for line in trial.output.splitlines() if "val_check_interval" in line]
    assert line.startswith("training.trainer.val_check_interval=1000: is more than the 5 batches")
    assert "training.check_val_every_n_epoch" in line
    assert "Traceback" not in trial.output
    assert not trial.folder.exists()


def test_a_part_of_an_epoch_without_a_length(tmp_path: Path) -> None:
    interval = "training.trainer={val_check_interval: 0.5}"
    trial = Place(tmp_path).run("trial", "Linear", "Endless", *BY_VALIDATION, interval)
    assert (trial.code, "Traceback" in trial.output) == (2, False), trial.output
    assert (
        "training.trainer.val_check_interval=0.5: the training data have no length" in trial.output
    )
