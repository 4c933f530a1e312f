"""Early stopping stops what W&B's engine stops, at the same bands; a checked-in table says what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlmodeldev.sweep import loads
from mlmodeldev.sweep.definition import Hyperband
from mlmodeldev.sweep.loading import pruning
from mlmodeldev.sweep.stopping import bands, verdict

ANSWERS = json.loads((Path(__file__).parent / "wandb_stops.json").read_text())


def test_the_table_holds_stops_and_others():
    stopped = sum(len(case["stopped"]) for case in ANSWERS)
    running = sum(len(case["histories"]) for case in ANSWERS)
    assert len(ANSWERS) > 100
    assert 0.1 * running < stopped < 0.9 * running


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_the_same_trials_are_stopped_as_by_wandb(goal):
    for case in (case for case in ANSWERS if case["goal"] == goal):
        rule, histories = Hyperband(**case["rule"]), case["histories"]
        assert bands(rule)[:6] == case["bands"], case["rule"]
        stopped = [
            i
            for i, own in enumerate(histories)
            if verdict(rule, own, histories[:i] + histories[i + 1 :], goal)
        ]
        assert stopped == case["stopped"], case


def test_the_reason_says_what_was_compared():
    rule = Hyperband(min_iter=2, eta=2)
    reason = verdict(rule, [0.1, 0.2], [[0.5, 0.6], [0.3, 0.4], [0.9]], "maximize")
    assert reason == "hyperband: 0.2 after 2 values is behind 0.4, the best 1/2 of 3 trials"
    assert verdict(rule, [0.1], [[0.5, 0.6]], "maximize") is None
    assert verdict(rule, [], [], "minimize") is None


def test_a_sweep_files_rule_reaches_its_trials():
    text = "method: random\nrun_cap: 2\nparameters: {optimizer.lr: {min: 0.1, max: 0.2}}\n"
    assert pruning(loads(text)) == []
    more = "metric: {name: val/loss}\nearly_terminate: {type: hyperband, max_iter: 9, s: 2}\n"
    assert pruning(loads(text + more)) == [
        "callbacks.pruning.enabled=true",
        "callbacks.pruning.metric=val/loss",
        "callbacks.pruning.goal=minimize",
        "callbacks.pruning.max_iter=9",
        "callbacks.pruning.s=2",
        "callbacks.pruning.eta=3.0",
        "callbacks.pruning.strict=true",
    ]
