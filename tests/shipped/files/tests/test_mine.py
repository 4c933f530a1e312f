"""The project's own model and data: ``pytest tests/test_mine.py``, about 30 seconds.

Each test ends with a paragraph that says what is wrong and what to change. Yours to change: delete
what is of no use to your model, and let `SETTINGS` make a trial of seconds (``model=NAME``,
``data=NAME`` and any other setting; without them, conf/config.yaml chooses).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mlmodeldev.testing import Project

SETTINGS = (
    "logger=csv",
    "training.accelerator=cpu",
    "training.max_epochs=2",
    "training.limit_train_batches=4",
    "training.limit_val_batches=2",
    "callbacks.cka.enabled=false",
)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(Path(__file__).parents[1], tmp_path_factory.mktemp("runs"), *SETTINGS)


def test_it_learns_one_batch(mine: Project) -> None:
    mine.learns_one_batch(steps=60, falls_by=0.2)


def test_a_killed_trial_ends_with_the_same_weights(mine: Project) -> None:
    mine.resumes_exactly()


def test_best_and_last_load_back(mine: Project) -> None:
    mine.exports_load_back()


def test_outputs_rest_on_the_example_alone(mine: Project) -> None:
    mine.outputs_rest_on_the_example()


def test_it_runs_on_any_device(mine: Project) -> None:
    mine.runs_on_any_device()


def test_the_layers_of_cka_exist(mine: Project) -> None:
    mine.cka_layers_exist()
