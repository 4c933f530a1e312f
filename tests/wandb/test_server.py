"""The loopback server does what W&B's does where an agent or a trial depends on it."""

from __future__ import annotations

import time

import pytest

from mlmodeldev.tracking.sweep_commands import Command, values_of
from tests.wandb.operations import ANSWERS, Refusal
from tests.wandb.store import ENTITY, Agent, Store
from tests.wandb.sweeps import Sweep

CONFIG = "method: grid\nparameters: {optimizer.lr: {values: [0.1, 0.2]}}\n"
OF_THE_RUN = {"optimizer": {"value": {"lr": 0.1, "name": "adamw"}}, "trial": {"value": {"id": "a"}}}


@pytest.fixture
def sweep() -> Sweep:
    store = Store()
    made = Sweep(store, ENTITY, "project", CONFIG)
    store.sweeps[made.name] = made
    return made


def test_a_resumed_run_comes_with_its_whole_configuration(sweep: Sweep) -> None:
    agent = Agent("1", sweep.name, "n1")
    (first,) = sweep.commands(agent, set())
    assert (first["type"], first["args"]) == ("run", {"optimizer.lr": {"value": 0.1}})
    run = sweep.runs[0]
    run.config = OF_THE_RUN
    sweep.give_back(run)
    (again,) = sweep.commands(agent, set())
    assert (again["type"], again["run_id"]) == ("resume", run.name)
    assert again["args"].keys() == {"optimizer.lr", "_wandb", *OF_THE_RUN}
    command = Command(type="resume", run_id=run.name, args=again["args"])
    assert values_of(command, sweep.config["parameters"]) == {"optimizer.lr": 0.1}


@pytest.mark.parametrize(("minutes", "state"), [(59, "preempted"), (61, "crashed")])
def test_a_preempted_run_is_given_up_after_an_hour(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, minutes: int, state: str
) -> None:
    sweep.commands(Agent("1", sweep.name, "n1"), set())
    (run,), store = sweep.runs, sweep.store
    run.starts, run.state, run.sweep = 1, "preempted", sweep.name
    sweep.give_back(run)
    now = time.time() + 60 * minutes
    monkeypatch.setattr(time, "time", lambda: now)
    store.refuses_given_up = True
    given = {"entity": ENTITY, "project": "project", "name": run.name}
    ANSWERS["RunResumeStatus"](store, given)
    assert (run.state, sweep.preempted) == (state, [run.name] if state == "preempted" else [])
    if state == "crashed":
        with pytest.raises(Refusal, match="was given up"):
            ANSWERS["UpsertBucket"](store, given)
