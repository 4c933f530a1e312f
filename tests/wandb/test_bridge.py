"""``SlurmTrain.py bridge``: a sweep of the server on machines that can't reach it."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from tests.wandb.conftest import Client, steps_are_whole

pytestmark = pytest.mark.slow


def bridge(client: Client, path: str, *words: str, **env: str):
    command = (sys.executable, "slurm/SlurmTrain.py", "bridge", path, *words)
    return client.start(*command, **env)


def records(client: Client, path: str) -> dict[str, dict]:
    folder = client.runs_dir / path.rpartition("/")[2]
    found = [json.loads(file.read_text()) for file in folder.glob("*/trial.json")]
    return {record["wandb_id"]: record for record in found}


def test_on_this_machine_survives_its_own_death(client: Client):
    path = client.sweep(
        {"optimizer.lr": {"values": [0.001, 0.003, 0.01]}, "training.max_epochs": {"value": 3}}
    )
    first = bridge(client, path, "cluster=local")
    client.until(lambda: any(run.steps for run in client.runs), "rows of the first trial")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = bridge(client, path, "cluster=local")
    assert client.end(second) == 0, client.output()
    runs = client.runs
    assert [run.ends for run in runs] == [[("finished", 0)]] * 3, client.output()
    assert {run.settings["optimizer.lr"] for run in runs} == {0.001, 0.003, 0.01}
    known = records(client, path)
    assert sorted(known) == sorted(run.name for run in runs)
    for run in runs:
        assert run.sweep == path.rpartition("/")[2]
        steps_are_whole(run)
        assert run.values("val/accuracy")
        assert known[run.name]["state"] == "done"
        assert known[run.name]["uploaded"] is True
        # the trial itself had no network: nothing but the bridge talked
        assert known[run.name]["wandb_path"] is None
