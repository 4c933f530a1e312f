"""A trial that W&B ends early is pruned, with its export; no signal is taken for it."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.wandb.conftest import Client, steps_are_whole

pytestmark = [pytest.mark.slow, pytest.mark.project]

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


def test_an_agents_sigterm_is_distinguished_from_a_preemption(client: Client):
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


def test_hyperband_of_the_server_ends_a_trial_that_is_worse_than_another(client: Client):
    path = client.sweep(
        {"optimizer.lr": {"value": 1.0e-9}, "training.max_epochs": {"value": 2000}},
        method="random",
        run_cap=2,
        early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2},
    )
    entity, project, name = path.split("/")
    sweep = client.server.store.sweeps[name]
    good = client.server.store.run(entity, project, "good0001")
    rows = [{"val/accuracy": 0.9, "_step": step} for step in range(8)]
    good.streams["wandb-history.jsonl"] = {n: json.dumps(row) for n, row in enumerate(rows)}
    sweep.runs.append(good)
    assert client.end(client.agent(path)) == 0
    (bad,) = client.runs
    assert bad.ends == [("finished", 0)], client.output()
    folder = client.folder_of(bad)
    assert json.loads((folder / "trial.json").read_text())["state"] == "pruned"
    assert bad.summary["state"] == "pruned"
    assert (folder / "best" / "model.safetensors").is_file()
    assert "the server says stop" in client.output()
