"""Whose a W&B run is that an agent has given: the first trial's that takes it."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from mlmodeldev.trial.agent_run import (
    AGENT_VARIABLES,
    OWNERS,
    give_run,
    given_run,
    leave_agent,
    owner_of,
    take_run,
    without_agent,
)
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.place import own_path


def folder(runs: Path, name: str) -> Path:
    path = runs / "s" / name
    path.mkdir(parents=True)
    return path


def test_a_run_is_the_first_trials_for_good(tmp_path: Path):
    first, second = folder(tmp_path, "one"), folder(tmp_path, "two")
    assert take_run(first, "r1")
    assert not take_run(second, "r1")
    assert take_run(first, "r1"), "when it comes back"
    assert owner_of(tmp_path, "r1") == "s/one"
    assert take_run(second, "r2")


def test_the_run_of_a_trial_that_is_deleted_is_free(tmp_path: Path):
    first, second = folder(tmp_path, "one"), folder(tmp_path, "two")
    take_run(first, "r1")
    first.rmdir()
    assert take_run(second, "r1")
    assert owner_of(tmp_path, "r1") == "s/two"


def test_what_wandb_says_counts_without_a_folder(tmp_path: Path):
    give_run(tmp_path, "r1", "s/of-another-machine")
    assert not take_run(folder(tmp_path, "one"), "r1")
    assert owner_of(tmp_path, "r1") == "s/of-another-machine"


def _take(path: Path, answers) -> None:
    answers.put(take_run(path, "r1"))


@pytest.mark.parametrize("before", [None, "", "s/of-a-trial-that-is-gone"])
def test_of_many_at_once_one_takes_it(tmp_path: Path, before: str | None):
    """Also where a killed process has left an empty note, or the trial before was deleted."""
    if before is not None:
        (tmp_path / OWNERS).mkdir()
        (tmp_path / OWNERS / "r1").write_text(before)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    each = [context.Process(target=_take, args=(folder(tmp_path, f"t{n}"), answers))
            for n in range(8)]  # fmt: skip
    for process in each:
        process.start()
    for process in each:
        process.join(30)
    assert sorted(answers.get() for _ in each) == [False] * 7 + [True]


@pytest.fixture
def agent(monkeypatch) -> None:
    for name in AGENT_VARIABLES:
        monkeypatch.setenv(name, "given")
    monkeypatch.setenv("WANDB_PROJECT", "the-agents")


def test_nothing_of_an_agent_is_inherited(agent):
    assert given_run() == ("given", "given")
    assert set(without_agent(os.environ)) == set(os.environ) - set(AGENT_VARIABLES)
    leave_agent()
    assert given_run() is None
    assert os.environ["WANDB_PROJECT"] == "the-agents"


def test_a_second_trial_of_one_agent_claims_its_folder_without_the_run(tmp_path, agent, capsys):
    first, second = TrialFolder(folder(tmp_path, "one")), TrialFolder(folder(tmp_path, "two"))
    first.claim()
    assert first.read()["wandb_id"] == "given"
    os.environ |= {"WANDB_RUN_ID": "given", "WANDB_SWEEP_ID": "given"}
    second.claim()
    record = second.read()
    assert record.get("wandb_id") is None
    assert record.get("wandb_sweep") is None
    assert record["wandb_place"][1] == "the-agents", "where the agent's runs are"
    assert given_run() is None
    output = capsys.readouterr().out
    assert output == "Weights & Biases: run given is that of trial s/one; this one gets its own\n"


def test_a_run_of_another_trial_gives_no_folder_a_second_name(tmp_path, agent):
    sweep = tmp_path / "s"
    place = own_path(sweep, {"optimizer.lr": 0.1})
    place.mkdir(parents=True)
    TrialFolder(place).update(state="running", wandb_id="its-own")
    assert own_path(sweep, {"optimizer.lr": 0.1}).name == f"{place.name}-given", "drawn twice"
    take_run(folder(tmp_path, "other"), "given")
    assert own_path(sweep, {"optimizer.lr": 0.1}) == place
