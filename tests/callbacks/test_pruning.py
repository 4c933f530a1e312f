"""A trial that falls behind is ended, exported, recorded as pruned, and stays so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlmodeldev.sweep.definition import Hyperband
from mlmodeldev.sweep.stopping import verdict
from tests.conftest import TrialResult
from tests.training.interrupted import Place

SMALL = (
    *("logger=csv", "model.hidden_size=16", "model.num_layers=1", "processing.batch_size=64"),
    *("callbacks.cka.enabled=false", "callbacks.samples.enabled=false", "training.max_epochs=6"),
)
PRUNED = (*SMALL, "callbacks.pruning.enabled=true", "callbacks.pruning.min_iter=2")


def neighbour(trials, name, values):
    """Write what another trial of the sweep has logged."""
    folder = trials.runs / "single" / name
    folder.mkdir(parents=True)
    entries = [{"epoch": i + 1, "val/accuracy": value} for i, value in enumerate(values)]
    (folder / "log.json").write_text(json.dumps(entries))


@pytest.fixture
def behind(trials):
    """A sweep whose other trials are better than anything."""
    for name in "abc":
        neighbour(trials, name, [0.5, 1.1, 1.1, 1.1])
    return trials


def test_a_trial_that_falls_behind_is_pruned_and_exported(behind):
    ended = behind.run(*PRUNED)
    assert ended.code == 0, ended.output
    assert ended.record["state"] == "pruned"
    assert ended.record["reason"].startswith("hyperband: ")
    assert "after 2 values" in ended.record["reason"]
    assert [entry["epoch"] for entry in ended.log] == [1, 2]
    assert "test" not in ended.record
    for name in ("best", "last"):
        assert (ended.folder / name / "model.safetensors").is_file()
    again = behind.run(*PRUNED)
    assert again.code == 0
    assert "pruned already" in again.output
    assert again.record["attempts"] == 1


def test_killed_after_the_verdict_it_stays_pruned_and_before_it_reaches_the_same(behind):
    killed = behind.run(*PRUNED, kill_at=3, during="validation_step")
    assert killed.code == -9
    ended = behind.run(*PRUNED)
    assert ended.record["state"] == "pruned"
    assert [entry["epoch"] for entry in ended.log] == [1, 2]
    assert ended.record["attempts"] == 2


def test_a_trial_among_the_best_goes_on(trials):
    for name in "abc":
        neighbour(trials, name, [0.0] * 6)
    ended = trials.run(*PRUNED, "callbacks.export.enabled=false")
    assert ended.record["state"] == "done"
    assert len(ended.log) == 6


def test_a_metric_that_is_not_logged_is_reported(trials):
    ended = trials.run(*PRUNED, "callbacks.pruning.metric=val/accurracy")
    assert ended.code == 2
    assert "did you mean 'val/accuracy'" in ended.output


def test_a_rule_of_optunas_needs_a_search(trials):
    ended = trials.run(*PRUNED, "callbacks.pruning.rule=median")
    assert ended.code == 2
    assert "needs a search" in ended.output


OFTEN = (
    *("training.monitor=val_loss", "training.mode=min", "training.trainer={val_check_interval: 1}"),
    *("callbacks.pruning.enabled=true", "callbacks.pruning.metric=val_loss"),
    *("callbacks.pruning.goal=minimize", "callbacks.pruning.min_iter=3", "callbacks.pruning.eta=2"),
)


def validated(trial: TrialResult) -> list[float]:
    """Return the loss of each validation, as the trial's rows have it."""
    return [float(row["val_loss"]) for row in trial.rows if "val_loss" in row]


def counted(trial: TrialResult) -> list[float]:
    return json.loads((trial.folder / "pruning.json").read_text())["values"]


def test_several_validations_an_epoch_are_compared_with_as_many_of_others(tmp_path: Path) -> None:
    """The rule's own answer for the rows of the trials decides, whatever an epoch is."""
    place, others = Place(tmp_path, "often"), []
    rule = Hyperband(min_iter=3, eta=2.0)
    for seed in (1, 2, 3, 4):
        trial = place.run(f"s{seed}", "Linear", "Both", *OFTEN, f"training.seed={seed}")
        assert trial.code == 0, trial.output
        values = validated(trial)
        fates = [verdict(rule, values[:n], others, "minimize") for n in range(1, len(values) + 1)]
        ended = trial.record["state"] == "pruned"
        assert [bool(fate) for fate in fates] == [False] * (len(values) - 1) + [ended]
        assert trial.record.get("reason") == fates[-1]
        others.append(values)
    for seed, values in enumerate(others, 1):
        assert counted(TrialResult(0, tmp_path / "often" / f"s{seed}")) == values


def test_what_a_resumed_trial_has_counted_is_what_an_undisturbed_one_has(tmp_path: Path) -> None:
    sanity = "training.trainer={val_check_interval: 2, num_sanity_val_steps: 2}"
    whole = Place(tmp_path, "whole").run("whole", "Linear", "Both", *OFTEN, sanity)
    place, values = Place(tmp_path, "killed"), validated(whole)
    assert len(values) == 6
    assert counted(whole) == values
    for call in (4, 6):
        assert place.run(
            "killed", "Linear", "Both", *OFTEN, sanity, at=("training_step", call)
        ).code
    resumed = place.run("killed", "Linear", "Both", *OFTEN, sanity)
    assert (resumed.code, counted(resumed)) == (0, values), resumed.output
    assert validated(resumed) == values


def test_a_trial_of_before_counts_by_its_log(trials) -> None:
    """Others that have written no values of their validations are compared by their epochs."""
    from mlmodeldev.trial.record import validations

    neighbour(trials, "old", [0.25, 0.5])
    folder = trials.runs / "single" / "old"
    assert validations(folder, "val/accuracy") == [0.25, 0.5]
    (folder / "pruning.json").write_text('{"metric": "other", "values": [1]}')
    assert validations(folder, "val/accuracy") == [0.25, 0.5]
    (folder / "pruning.json").write_text('{"metric": "val/accuracy", "values": [0.1, "x", 0.3]}')
    assert validations(folder, "val/accuracy") == [0.1, 0.3]
