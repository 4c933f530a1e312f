"""A trial that falls behind is ended, exported, recorded as pruned, and stays so."""

from __future__ import annotations

import json

import pytest

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
