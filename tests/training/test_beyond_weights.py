"""What no checkpoint of Lightning's holds comes back all the same: trials end as undisturbed ones.

Each case is killed twice, and each start goes on from the newest checkpoint.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.errors import EXIT_INTERRUPTED
from tests.training.interrupted import Place
from tests.training.test_plain_resume import outcome

BY_LOSS = ("training.monitor=loss", "training.mode=min")
BY_VALIDATION = ("training.monitor=val_loss", "training.mode=min")
ACCUMULATES = {
    "mine": {
        "_target_": "pytorch_lightning.callbacks.GradientAccumulationScheduler",
        "scheduling": {1: 2},
    }
}
CASES: dict[str, tuple[str, str, tuple[str, ...], dict[str, Any]]] = {
    "a step each second batch": ("ByHand", "ToTrain", BY_LOSS, {}),
    "steps that Lightning does not count": ("ByRawOptimizer", "ToTrain", BY_LOSS, {}),
    "gradients of zeros": ("ByHandWithMomentum", "ToTrain", BY_LOSS, {}),
    "a schedule of accumulation": ("Linear", "Both", BY_VALIDATION, ACCUMULATES),
    "parts thawed in an epoch": ("Thaws", "Both", BY_VALIDATION, {}),
    "metrics in wrappers": ("Wrapped", "Both", BY_VALIDATION, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_killed_twice_it_ends_as_undisturbed(case: str, tmp_path: Path) -> None:
    model, data, settings, callbacks = CASES[case]
    place = Place(tmp_path)
    whole = place.run("whole", model, data, *settings, callbacks=callbacks)
    assert whole.code == 0, whole.output
    expected = outcome(whole)
    assert len({row["step"] for row in expected["rows"]}) == whole_steps(case)
    for call in (8, 4):  # in epoch 1, then in epoch 2 or at the end of epoch 1
        killed = place.run(
            "killed", model, data, *settings, callbacks=callbacks, at=("training_step", call)
        )
        assert killed.code == -signal.SIGKILL, killed.output
    again = place.run("killed", model, data, *settings, callbacks=callbacks)
    assert again.code == 0, again.output
    assert outcome(again) == expected


def whole_steps(case: str) -> int:
    """Return how many steps rows have: a batch's each, but where batches are accumulated."""
    return 5 + 3 + 3 if case == "a schedule of accumulation" else 15


def ends_as_undisturbed(folder: Path, model: str, at: int, *settings: str) -> None:
    """Check a trial that is stopped in a validation step, counted over all validations."""
    place = Place(folder)
    expected = outcome(place.run("whole", model, "Both", *settings))
    stopped = place.run(
        "stopped", model, "Both", *settings, at=("validation_step", at), number=int(signal.SIGTERM)
    )
    assert stopped.code == EXIT_INTERRUPTED, stopped.output
    again = place.run("stopped", model, "Both", *settings)
    assert (again.code, outcome(again)) == (0, expected), again.output


def test_stopped_in_a_validation_it_ends_as_undisturbed(tmp_path: Path) -> None:
    """The model is in eval mode then, and what was thawed is so after the validation."""
    ends_as_undisturbed(tmp_path, "Thaws", 8, *BY_VALIDATION)  # of epoch 1


def test_stopped_in_a_validation_between_the_batches_of_one_step(tmp_path: Path) -> None:
    """The first batch's gradients wait for those of the second."""
    often = "training.trainer={val_check_interval: 1}"
    settings = (*BY_VALIDATION, "training.accumulate_grad_batches=2", often)
    # of the eighth validation, after the third batch of epoch 1
    ends_as_undisturbed(tmp_path, "Linear", 38, *settings)


def test_each_of_two_ranks_has_its_gradients_back(tmp_path: Path) -> None:
    place, two = Place(tmp_path), (*BY_LOSS, "training.devices=2")
    expected = outcome(place.run("whole", "ByHand", "ToTrain", *two))
    at = ("training_step", 8)
    assert place.run("killed", "ByHand", "ToTrain", *two, at=at).code != 0
    again = place.run("killed", "ByHand", "ToTrain", *two)
    assert (again.code, outcome(again)) == (0, expected), again.output


def test_loaders_are_made_for_the_epochs_of_an_undisturbed_trial(tmp_path: Path) -> None:
    reloads = "training.trainer={reload_dataloaders_every_n_epochs: 2}"
    settings = (*BY_VALIDATION, "training.max_epochs=5", reloads)
    place = Place(tmp_path)
    whole = place.run("whole", "Linear", "Harder", *settings)
    assert whole.code == 0, whole.output
    assert made(whole.output, "train") == [0, 2, 4]
    expected = outcome(whole)
    # in the middle of epoch 1; before the first step of epoch 2; in the middle of epoch 3
    for call in (8, 4, 7):
        at = ("training_step", call)
        assert place.run("killed", "Linear", "Harder", *settings, at=at).code == -signal.SIGKILL
    again = place.run("killed", "Linear", "Harder", *settings)
    assert (again.code, outcome(again)) == (0, expected), again.output
    assert made(again.output, "train") == [0, 0, 2, 2, 2, 4]
    assert made(again.output, "val")[-1] == made(whole.output, "val")[-1] == 4


def made(output: str, stage: str) -> list[int]:
    """Return the epochs for which the loaders of a stage were made."""
    words = [line.split() for line in output.splitlines() if line.startswith(f"{stage} for epoch")]
    return [int(word[-1]) for word in words]
