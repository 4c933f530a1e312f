"""A trial that W&B ends early is pruned, with its export; no signal is taken for it."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.wandb.conftest import Client, steps_are_whole

pytestmark = pytest.mark.slow

ENDLESS = ("training.max_epochs=2000", "artefacts.trial=long")


def until_rows(client: Client) -> None:
    """Wait until W&B has rows of the one run."""
    client.until(lambda: client.runs and len(client.runs[0].steps) > 3, "rows in W&B")


def ended_well(client: Client) -> dict:
    """The record of the one trial; pruned, exported and told so."""
    (run,) = client.runs
    folder = client.runs_dir / str(run.sweep or "single") / "long"
    record = json.loads((folder / "trial.json").read_text())
    assert (record["state"], record["uploaded"]) == ("pruned", True), client.output()
    assert (folder / "best" / "model.safetensors").is_file()
    assert (folder / "last" / "model.safetensors").is_file()
    assert run.ends == [("finished", 0)]
    assert run.summary["state"] == "pruned"
    steps_are_whole(run, len((folder / "metrics.csv").read_text().splitlines()) - 1)
    return record


def test_stop_in_the_ui_ends_a_trial_for_good(client: Client):
    process = client.trial(*ENDLESS, f"logger.wandb.project={client.project}")
    until_rows(client)
    client.runs[0].stop = True
    process.join(100)
    assert process.exitcode == 0, client.output()
    assert ended_well(client)["reason"] == "ended early by W&B"
    again = client.trial(*ENDLESS, f"logger.wandb.project={client.project}")
    again.join(60)
    assert again.exitcode == 0
    ended_well(client)


def test_an_agents_sigterm_is_told_from_a_preemption(client: Client):
    """`wandb agent` says "stop" by SIGTERM; the trial asks the server what is meant."""
    path = client.sweep({"optimizer.lr": {"values": [0.01]}})
    entity, project, sweep = path.split("/")
    given = {"WANDB_SWEEP_ID": sweep, "WANDB_RUN_ID": "stopped1", "WANDB_PROJECT": project,
             "WANDB_ENTITY": entity}  # fmt: skip
    process = client.trial(*ENDLESS, **given)
    until_rows(client)
    run = client.runs[0]
    with client.server.store.lock:
        run.stop = True
        os.kill(process.pid, signal.SIGTERM)
    process.join(100)
    assert process.exitcode == 0, client.output()
    ended_well(client)


def test_hyperband_of_the_server_ends_the_worse_trials(client: Client):
    path = client.sweep(
        {
            "optimizer.lr": {"values": [0.02, 1.0e-9]},
            "training.max_epochs": {"value": 40},
        },
        early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2},
    )
    assert client.end(client.agent(path)) == 0
    good, bad = client.runs
    assert [good.ends, bad.ends] == [[("finished", 0)]] * 2, client.output()
    assert (good.summary["state"], bad.summary["state"]) == ("done", "pruned")
    assert len(bad.values("val/accuracy")) < 40
    assert (client.folder_of(bad) / "best" / "model.safetensors").is_file()
