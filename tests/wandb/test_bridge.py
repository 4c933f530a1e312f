"""``SlurmTrain.py bridge``: a sweep of the server on machines that can't reach it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from mlmodeldev.slurm.submission import submissions
from tests.secrets.planted import HEX
from tests.slurm.cluster import Cluster, Slurm
from tests.slurm.sweeps import SmallSweep
from tests.wandb.conftest import Client, steps_are_whole
from tests.wandb.server import KEY

pytestmark = pytest.mark.slow


def bridge(client: Client, path: str, *words: str, **env: str):
    command = (sys.executable, "slurm/SlurmTrain.py", "bridge", path, *words)
    return client.start(*command, **env)


def records(client: Client, path: str) -> dict[str, dict]:
    folder = client.runs_dir / path.rpartition("/")[2]
    contents = [json.loads(file.read_text()) for file in folder.glob("*/trial.json")]
    return {record["wandb_id"]: record for record in contents}


def test_on_this_machine_survives_its_own_death(client: Client):
    path = client.sweep(
        {"optimizer.lr": {"values": [0.001, 0.003]}, "training.max_epochs": {"value": 3}}
    )
    first = bridge(client, path, "cluster=local")
    client.until(lambda: any(run.steps for run in client.runs), "rows of the first trial")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = bridge(client, path, "cluster=local")
    assert client.end(second) == 0, client.output()
    runs = client.runs
    assert len(runs) == 2, client.output()
    # a bridge killed between a run's end and its own note of it ends the run once more
    assert [set(run.ends) for run in runs] == [{("finished", 0)}] * 2, client.output()
    assert {run.settings["optimizer.lr"] for run in runs} == {0.001, 0.003}
    recorded = records(client, path)
    assert sorted(recorded) == sorted(run.name for run in runs)
    for run in runs:
        assert run.sweep == path.rpartition("/")[2]
        steps_are_whole(run)
        assert run.values("val/accuracy")
        assert recorded[run.name]["state"] == "done"
        assert recorded[run.name]["uploaded"] is True
        # the trial itself had no network: nothing but the bridge talked
        assert recorded[run.name]["wandb_path"] is None


def test_on_slurm_nodes_a_stop_reaches_the_trial_and_a_killed_bridge_its_job(
    client: Client, slurm: Slurm
):
    path = client.sweep({"training.max_epochs": {"values": [3000, 2]}})
    words = ["cluster=debug", "cluster.cpus_per_task=4", "--slots", "1"]
    reaches = {k: v for k, v in slurm.env.items() if os.environ.get(k) != v}
    first = bridge(client, path, *words, **reaches)
    long = client.until(lambda: next((r for r in client.runs if r.steps), None), "rows", 200)
    assert long.state == "running"
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = len(long.steps)
    second = bridge(client, path, *words, **reaches)
    client.until(lambda: len(long.steps) > before, "rows after the kill")
    long.stop = True  # "stop run" in the browser
    most = 0

    def over() -> bool:
        nonlocal most
        most = max(most, len(slurm.running("-n", long.sweep or "")))
        return second.poll() is not None

    client.until(over, "the end of the bridge", 250)
    assert second.returncode == 0, client.output()
    short = next(run for run in client.runs if run is not long)
    assert [long.ends, short.ends] == [[("finished", 0)]] * 2
    recorded = records(client, path)
    assert [recorded[run.name]["state"] for run in (long, short)] == ["pruned", "done"]
    assert recorded[long.name]["reason"] == "ended early by W&B"
    assert recorded[long.name]["attempts"] == 1
    steps_are_whole(long)
    steps_are_whole(short)
    folder = client.runs_dir / str(long.sweep)
    jobs = [job for each in submissions(folder) for job, _ in each.tasks()]
    assert (len(jobs), most) == (2, 1)
    # the nodes had no key, and what sbatch was given holds none
    assert with_key([folder], KEY) == []


def with_key(folders: list[Path], key: str) -> list[Path]:
    """The files that hold a key."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if key.encode() in file.read_bytes()]


def test_slurm_learns_no_key_of_the_one_who_submits(
    own_slurm: Cluster, tmp_path: Path, data_dir: Path, monkeypatch
):
    """A job's script and environment lie in Slurm's own folder until it has ended."""
    monkeypatch.setitem(own_slurm.env, "WANDB_API_KEY", HEX)
    monkeypatch.setitem(own_slurm.env, "HARMLESS", "handed on to the job")
    sweep = SmallSweep(own_slurm, tmp_path, data_dir, 1)
    monkeypatch.setitem(own_slurm.env, "SBATCH_HOLD", "1")
    sweep.train("submit", "cluster.cpus_per_task=1", "--yes")
    (job,) = {sweep.job(trial) for trial in sweep.trials}
    kept = [own_slurm.folder / "state", sweep.runs]
    assert with_key(kept, "handed on to the job"), "the job's environment is there"
    assert with_key(kept, HEX) == []
    assert HEX not in own_slurm.run("scontrol", "show", "job", "-dd", job)
    assert HEX not in own_slurm.run("scontrol", "write", "batch_script", job, "-")
    own_slurm.run("scancel", job)
