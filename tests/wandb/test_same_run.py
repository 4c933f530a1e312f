"""The same run after every interruption, each row once, and one end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.wandb.conftest import Client, steps_are_whole

pytestmark = pytest.mark.slow

LONG = ("training.max_epochs=12", "artefacts.trial=one", "training.checkpoint_every_n_steps=10")


def rows(folder: Path) -> list[str]:
    file = folder / "metrics.csv"
    return file.read_text().splitlines()[1:] if file.is_file() else []


def record(folder: Path) -> dict:
    return json.loads((folder / "trial.json").read_text())


def interrupt(client: Client, number: int, **env: str) -> Path:
    """Start a trial, and signal it in its third epoch."""
    folder = client.runs_dir / env.get("WANDB_SWEEP_ID", "single") / "one"
    process = client.trial(*LONG, f"logger.wandb.project={client.project}", **env)
    client.until(lambda: len(rows(folder)) > 14, "rows")
    client.until(lambda: len(client.runs[0].steps) > 4 if client.runs else False, "rows in W&B")
    os.kill(process.pid, number)
    process.join(100)
    assert process.exitcode == (75 if number == signal.SIGTERM else -number), client.output()
    return folder


def go_on(client: Client, **env: str) -> None:
    process = client.trial(*LONG, f"logger.wandb.project={client.project}", **env)
    process.join(150)
    assert process.exitcode == 0, client.output()


def test_a_run_goes_on_where_it_was(client: Client):
    """After a requeue that waited for longer than W&B does; kills: ``test_promises.py``."""
    folder = interrupt(client, signal.SIGTERM)
    (run,) = client.runs
    assert run.ends == [("preempted", 75)]
    assert record(folder)["state"] == "interrupted"
    assert record(folder)["uploaded"] is True
    steps_are_whole(run, len(rows(folder)))
    client.server.store.resume_seconds = 0.0
    go_on(client)
    assert client.runs == [run]
    assert run.ends == [("preempted", 75), ("finished", 0)]
    steps_are_whole(run, len(rows(folder)))
    best = record(folder)["metric"]["value"]
    assert run.summary["val/accuracy"] == pytest.approx(best)
    assert max(run.values("val/accuracy")) == pytest.approx(best)
    written = [float(v) for v in (r["trainer/global_step"] for r in run.history)]
    assert written == sorted(written)


def test_a_run_that_is_not_to_be_had_again_is_begun_anew_with_all_rows(client: Client):
    folder = interrupt(client, signal.SIGTERM)
    (first,) = client.runs
    store = client.server.store
    store.resume_seconds, store.refuses_given_up = 0.0, True
    go_on(client)
    second = next(run for run in client.runs if run is not first)
    assert (first.state, second.ends) == ("crashed", [("finished", 0)])
    steps_are_whole(second, len(rows(folder)))
    assert second.settings["trial"]["identity"] == first.settings["trial"]["identity"]
    assert (record(folder)["wandb_id"], record(folder)["uploaded"]) == (second.name, True)
    line = f"takes run {first.name} no more"
    assert client.output().count(line) == 1
    assert f"the trial goes on as run {second.name}, with all its rows" in client.output()


def test_an_interrupted_trial_of_a_sweep_goes_on_without_an_agent(client: Client):
    path = client.sweep({"optimizer.lr": {"values": [0.01, 0.02]}})
    entity, project, sweep = path.split("/")
    given = {
        "WANDB_SWEEP_ID": sweep, "WANDB_RUN_ID": "byhand01", "WANDB_RESUME": "allow",
        "WANDB_PROJECT": project, "WANDB_ENTITY": entity,
    }  # fmt: skip
    folder = interrupt(client, signal.SIGKILL, **given)
    go_on(client, **given)
    (run,) = client.runs
    assert (run.name, run.sweep, run.ends) == ("byhand01", sweep, [("finished", 0)])
    steps_are_whole(run, len(rows(folder)))


def test_a_point_that_is_done_is_handed_to_the_next_run_of_it_and_not_trained(client: Client):
    path = client.sweep({"optimizer.lr": {"value": 0.01}}, method="random", run_cap=2)
    assert client.end(client.agent(path)) == 0
    first, second = client.runs
    assert [first.ends, second.ends] == [[("finished", 0)]] * 2
    assert len(list((client.runs_dir / str(first.sweep)).glob("*/trial.json"))) == 1
    folder = client.folder_of(first)
    assert record(folder)["attempts"] == 1
    steps_are_whole(second, len(rows(folder)))
    assert second.values("val/accuracy") == pytest.approx(first.values("val/accuracy"))


def test_an_agent_comes_back_to_its_own_trial_after_being_killed_with_all(client: Client):
    path = client.sweep(
        {"optimizer.lr": {"values": [0.01, 0.02]}, "training.max_epochs": {"value": 12}}
    )
    job = {"SLURM_JOB_ID": "4711"}  # no Slurm: only the name that a requeued job would have
    first = client.agent(path, **job)
    folder = client.until(lambda: next(client.runs_dir.glob("*/*/metrics.csv"), None), "a trial")
    client.until(lambda: len(rows(folder.parent)) > 10, "rows")
    os.killpg(first.pid, signal.SIGKILL)
    owner = record(folder.parent)["owner"]["pid"]
    os.kill(owner, signal.SIGKILL)
    first.wait()
    assert client.end(client.agent(path, **job)) == 0
    assert len(client.runs) == 2
    assert [run.ends for run in client.runs] == [[("finished", 0)]] * 2, client.output()
    assert sorted(record(client.folder_of(run))["attempts"] for run in client.runs) == [1, 2]
    for run in client.runs:
        steps_are_whole(run, len(rows(client.folder_of(run))))
    assert "was interrupted" in client.output()
