"""Where an attempt may end, and what acts there: the next goes on as if nothing had been."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from mlmodeldev.errors import EXIT_INTERRUPTED
from mlmodeldev.trial.checkpoint_values import read_checkpoint
from tests.training.test_plain_resume import CASES, Run, outcome, run

__all__ = ["run"]

SELDOM = "training.checkpoint_every_n_steps=100"  # so what counts is the epoch's, or a signal's
LOSS = ["training.monitor=val_loss", "training.mode=min", SELDOM]
CASES |= {
    name: (f"tests.training.callback_classes.{name}", "Plain", LOSS)
    for name in ("Halving", "Unfrozen", "Averaged", "AveragedByOthers")
}
BATCHES = 5  # of an epoch


def ends_the_same(run: Run, case: str, at: tuple[str, int], number: int, *more: str) -> Any:
    """Train undisturbed, and disturbed once; return what both come to."""
    whole = run(case, "whole", *more)
    assert whole.code == 0, whole.output
    ended = run(case, "mine", *more, at=at, number=number).code
    assert ended == (-number if number == signal.SIGKILL else EXIT_INTERRUPTED)
    again = run(case, "mine", *more)
    assert again.code == 0, again.output
    expected = outcome(whole)
    assert outcome(again) == expected
    return expected


def test_steps_that_are_limited_go_on_from_an_epochs_end(run: Run) -> None:
    """Lightning alone takes each start of such a training for one within an epoch."""
    limit, at = "training.max_steps=18", ("training_step", BATCHES + 2)
    ends_the_same(run, "everything", at, signal.SIGKILL, SELDOM, limit)


def test_steps_that_were_over_are_followed_by_the_next_epoch(run: Run) -> None:
    for steps in (7, 14):
        trial = run("everything", "mine", SELDOM, f"training.max_steps={steps}")
        assert trial.code == 0, trial.output
    assert [entry["step"] for entry in trial.log] == [5, 7, 12, 14]
    assert [entry["epoch"] for entry in trial.log] == [1, 2, 3, 4]


@pytest.mark.parametrize("case", ["own loaders", "validates each second epoch"])
def test_a_signal_in_an_epochs_last_step_without_a_validation(run: Run, case: str) -> None:
    result = ends_the_same(run, case, ("training_step", BATCHES), signal.SIGTERM, SELDOM)
    assert [entry["step"] for entry in result["log"]] == [5, 10, 15, 20]


def test_a_metric_of_training_is_judged_by_its_own_epoch(run: Run) -> None:
    """At a validation's end its value is still the last epoch's."""
    trial = run("everything", "mine", "training.monitor=train_acc", "training.mode=max", SELDOM)
    values = [entry["train_acc"] for entry in trial.log]
    assert trial.record["metric"]["value"] == max(values)
    epoch = trial.record["metric"]["epoch"]
    assert values[epoch - 1] == max(values)
    best = read_checkpoint(trial.folder / "checkpoints" / "best.ckpt")
    assert best["global_step"] == BATCHES * epoch


def test_the_check_of_sanity_is_no_validation(run: Run) -> None:
    plain = run("everything", "plain", SELDOM)
    sanity = "training.trainer={num_sanity_val_steps: 1}"
    checked = run("everything", "checked", SELDOM, sanity)
    assert checked.code == 0, checked.output
    assert outcome(checked) == outcome(plain)
    assert checked.record["metric"] == plain.record["metric"]
    stopped = run(
        "everything", "mine", SELDOM, sanity, at=("validation_step", 1), number=signal.SIGTERM
    )
    assert stopped.code == EXIT_INTERRUPTED
    assert outcome(run("everything", "mine", SELDOM, sanity)) == outcome(plain)


@pytest.mark.parametrize("case", ["Halving", "Unfrozen"])
def test_what_callbacks_do_at_a_start_is_done_once(run: Run, case: str) -> None:
    """At the start of the epoch, or batch, that a resumed trial comes to again."""
    ends_the_same(run, case, ("training_step", 2 * BATCHES + 2), signal.SIGKILL)


@pytest.mark.parametrize("case", ["Averaged", "AveragedByOthers"])
def test_a_signal_in_the_validation_of_an_average(run: Run, case: str) -> None:
    ends_the_same(run, case, ("validation_step", 3), signal.SIGTERM)


def test_an_averaged_model_is_trained_further_from_its_own_weights(run: Run) -> None:
    whole = run("Averaged", "whole")
    part = run("Averaged", "mine", "training.max_epochs=2")
    exported = (part.folder / "last" / "model.safetensors").read_bytes()
    assert run("Averaged", "mine").code == 0
    assert outcome(run("Averaged", "mine")) == outcome(whole)
    other = run("Averaged", "other", "training.max_epochs=2", at=("on_train_end", 1))
    assert other.code == -signal.SIGKILL
    other = run("Averaged", "other", "training.max_epochs=2")
    last = (other.folder / "last" / "model.safetensors").read_bytes()
    assert last == exported, "the average, though nothing was left to train"


def test_checkpoints_by_steps_where_each_is_followed_by_a_validation(run: Run) -> None:
    often = ["training.checkpoint_every_n_steps=2", "training.trainer={val_check_interval: 2}"]
    ends_the_same(run, "everything", ("training_step", 5), signal.SIGKILL, *often)
    killed = run("everything", "killed", *often, at=("training_step", 5))
    assert read_checkpoint(killed.checkpoint)["global_step"] == 4
