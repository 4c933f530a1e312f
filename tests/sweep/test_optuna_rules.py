"""Optuna's own stopping rules, by the journal of a search; and its own reader of the journal."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.callback_schema import Pruning
from mlmodeldev.settings.overrides import parse_overrides
from mlmodeldev.sweep import load
from mlmodeldev.sweep.optuna_rules import judge
from mlmodeldev.sweep.search import SearchSource
from mlmodeldev.trial.task import TrialResult
from tests.sweep.searching import Hunt

CURVES = [[0.1, 0.5 + i / 20, 0.6 + i / 20] for i in range(5)]
WORST, BEST = [0.1, 0.2, 0.3], [0.1, 0.9, 0.9]


class Begun:
    """Seven trials that a search has begun."""

    def __init__(self, here: Path) -> None:
        more = "early_terminate: {type: hyperband, min_iter: 2, eta: 2}\n"
        hunt = Hunt(here, cap=7, more=more)
        self.source = SearchSource(load(hunt.file), hunt.runs)
        self.works = [self.source.take() for _ in range(7)]

    def __call__(self, number: int, rule: str) -> Pruning:
        """A trial's settings, with another rule."""
        head = "callbacks.pruning."
        overrides = parse_overrides(self.works[number].overrides)
        given = {k.removeprefix(head): v for k, v in overrides.items() if k.startswith(head)}
        return Pruning(**{**given, "rule": rule})

    def finish(self, number: int, curve: list[float]) -> None:
        """Let a trial end well."""
        work = self.works[number]
        work.folder.mkdir(parents=True, exist_ok=True)
        (work.folder / "log.json").write_text(json.dumps([{"val/accuracy": v} for v in curve]))
        self.source.report(work, TrialResult(0, "done", None, 1.0))


@pytest.fixture
def trials(tmp_path):
    return Begun(tmp_path)


@pytest.mark.parametrize("rule", ["median", "successive_halving", "optuna_hyperband"])
def test_the_best_goes_on_and_the_worst_ends(rule, trials):
    for number, curve in enumerate(CURVES):
        for seen in range(1, 4):
            judge(trials(number, rule), curve[:seen])
        trials.finish(number, curve)
    assert [judge(trials(6, rule), BEST[:seen]) for seen in (1, 2, 3)] == [None] * 3
    reasons = [judge(trials(5, rule), WORST[:seen]) for seen in (1, 2, 3)]
    if rule != "optuna_hyperband":  # whose brackets hold few of seven trials
        assert reasons[0] is None, "not before min_iter"
        assert reasons[1] == f"{rule}: 0.2 after 2 values is behind the others"


def test_what_was_reported_is_what_optuna_reads(trials):
    settings = trials(1, "median")
    judge(settings, [0.25])
    judge(settings, [0.25, 0.5])
    backend = optuna.storages.journal.JournalFileBackend(settings.journal)
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.load_study(study_name=settings.study, storage=storage)
    assert study.trials[1].intermediate_values == {1: 0.25, 2: 0.5}


def test_without_a_search_or_with_another_it_is_refused(trials):
    with pytest.raises(UsageError, match="needs a search"):
        judge(Pruning(rule="median"), [0.1])
    settings = trials(0, "median").model_copy(update={"study": "another"})
    with pytest.raises(UsageError, match="holds no search 'another'"):
        judge(settings, [0.1])
    assert judge(trials(0, "median"), []) is None


def test_what_a_trial_ends_with_is_counted_by_validations_too(trials):
    """Two validations an epoch: the numbers that were reported stay those of the validations."""
    settings, values = trials(1, "median"), [0.125, 0.25, 0.375, 0.5]
    for seen in range(1, 5):
        judge(settings, values[:seen])
    folder = trials.works[1].folder
    folder.mkdir(parents=True)
    counted = {"metric": "val/accuracy", "values": values}
    (folder / "pruning.json").write_text(json.dumps(counted))
    trials.finish(1, values[1::2])
    backend = optuna.storages.journal.JournalFileBackend(settings.journal)
    storage = optuna.storages.JournalStorage(backend)
    (row,) = [
        each
        for each in optuna.load_study(study_name=settings.study, storage=storage).trials
        if each.number == 1
    ]
    assert row.intermediate_values == dict(enumerate(values, 1))
    assert row.value == 0.5
