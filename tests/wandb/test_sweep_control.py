"""A sweep steered from the server: its search, pause, resume and cancel; and agents that die."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.wandb.conftest import ROOT, Client, steps_are_whole
from tests.wandb.server import KEY

pytestmark = [pytest.mark.project, pytest.mark.slow, pytest.mark.timeout(600)]


SYNC = ("python", str(ROOT / "slurm" / "SlurmTrain.py"), "sync")


def records(client: Client, path: str) -> dict[str, dict]:
    """The records of a sweep's trials, by the run's id."""
    files = client.runs_dir.glob(f"{path.rpartition('/')[2]}/*/trial.json")
    contents = [{**json.loads(file.read_text()), "path": file.parent} for file in files]
    return {record["wandb_id"]: record for record in contents if "wandb_id" in record}


def rows(folder: Path) -> int:
    file = folder / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.is_file() else 0


def test_bayes_of_the_server_is_shared_by_two_agents(client: Client, monkeypatch):
    """The server draws near the best so far; one agent is the client's, which takes one run."""
    path = client.sweep(
        {
            "optimizer.lr": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 0.1},
            "model.hidden_size": {"values": [8, 16]},
        },
        method="bayes",
        run_cap=5,
    )
    theirs = client.start("wandb", "agent", "--count", "1", path)
    ours = client.agent(path)
    assert [client.end(each) for each in (ours, theirs)] == [0, 0]
    sweep = client.server.store.sweeps[path.rpartition("/")[2]]
    assert len(client.runs) == len(sweep.given) == 5, client.output()
    assert sweep.state == "FINISHED"
    recorded = records(client, path)
    for run in client.runs:
        assert run.ends == [("finished", 0)], client.output()
        parameters, used = sweep.given[run.name], recorded[run.name]["overrides"]
        assert used["optimizer.lr"] == parameters["optimizer.lr"] == run.settings["optimizer.lr"]
        assert 1e-4 <= parameters["optimizer.lr"] <= 0.1
        assert used["model.hidden_size"] == parameters["model.hidden_size"]
        steps_are_whole(run, rows(recorded[run.name]["path"]))
        # what the search learns from: the best value of the run
        assert run.summary["val/accuracy"] == max(run.values("val/accuracy"))
    assert len({run.settings["optimizer.lr"] for run in client.runs}) == 5

    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", client.server.url)
    remote = wandb.Api(api_key=KEY).sweep(path)
    assert (remote.state, remote.config["method"]) == ("FINISHED", "bayes")
    assert {run.id for run in remote.runs} == set(sweep.given)


def test_an_agent_waits_while_a_sweep_is_paused_and_leaves_when_it_is_cancelled(client: Client):
    path = client.sweep({"training.max_epochs": {"values": [12, 3000]}})
    sweep = client.server.store.sweeps[path.rpartition("/")[2]]
    agent = client.agent(path)
    client.until(lambda: client.runs and client.runs[0].steps, "rows of the first trial")
    client.sh("wandb", "sweep", "--pause", path)
    assert sweep.state == "PAUSED"
    first = client.runs[0]
    client.until(lambda: first.ends, "the end of the running trial")
    requests_of = client.server.store.requests_of
    before = len(requests_of("Heartbeat"))
    client.until(lambda: len(requests_of("Heartbeat")) > before + 1, "an agent that waits")
    assert agent.poll() is None
    assert client.runs == [first]
    client.sh("wandb", "sweep", "--resume", path)
    long = client.until(lambda: client.runs[1:] and client.runs[1].steps and client.runs[1], "rows")
    client.sh("wandb", "sweep", "--cancel", path)
    assert client.end(agent) == 0, client.output()
    assert [first.ends, long.ends] == [[("finished", 0)]] * 2
    record = records(client, path)[long.name]
    assert (record["state"], record["uploaded"]) == ("pruned", True)
    assert long.summary["state"] == "pruned"
    for folder in ("best", "last"):
        assert (record["path"] / folder / "model.safetensors").is_file()
    steps_are_whole(long, rows(record["path"]))
    assert "the sweep was cancelled; 2 trials ended well" in client.output()


def test_a_killed_agents_trial_is_not_doubled_by_its_successor(client: Client):
    """Only the agent dies; its trial, which lives on, is waited for and counted."""
    path = client.sweep(
        {"training.max_epochs": {"value": 12}, "optimizer.lr": {"values": [0.01, 0.02]}}
    )
    job = {"SLURM_JOB_ID": "4712"}  # no Slurm: only the name that a requeued job would have
    first = client.agent(path, **job)
    client.until(lambda: client.runs and client.runs[0].steps, "rows of the first trial")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert client.end(client.agent(path, **job)) == 0, client.output()
    assert len(client.runs) == 2, client.output()
    recorded = records(client, path)
    for run in client.runs:
        assert [end for end in run.ends if end[0] == "finished"] == [("finished", 0)]
        steps_are_whole(run, rows(recorded[run.name]["path"]))
        assert recorded[run.name]["state"] == "done"


def test_a_requeued_agent_goes_on_with_its_trial_without_its_server(client: Client):
    path = client.sweep({"training.max_epochs": {"value": 6}})
    place, job = f"artefacts.runs_dir={client.runs_dir}", {"SLURM_JOB_ID": "4713"}
    first = client.agent(path, place, **job)
    client.until(lambda: client.runs and len(client.runs[0].steps) > 2, "rows of the trial")
    first.send_signal(signal.SIGTERM)
    assert client.end(first) == 75, client.output()
    client.server.faults.fail(503, 10**6)
    short = {"WANDB_INIT_TIMEOUT": "4", "WANDB_FINISH_TIMEOUT": "4"}
    again = client.agent(path, place, **short, **job)
    run = client.runs[0]
    client.until(lambda: records(client, path)[run.name]["state"] == "done", "the trial's end")
    client.server.faults.clear()
    assert client.end(again) == 0, client.output()
    assert client.runs == [run]
    assert client.output().count("going on with what lies here") == 1
    recorded = records(client, path)[run.name]
    client.sh(*SYNC, "--runs-dir", str(client.runs_dir))
    steps_are_whole(run, rows(recorded["path"]))


def test_each_process_of_a_trial_has_the_config_and_one_talks(client: Client):
    """Two processes by torchrun, under the client's own agent."""
    command = ["${env}", sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    path = client.sweep(
        {
            "optimizer.lr": {"values": [0.0123]},
            "training.gradient_clip_val": {"value": None},
            "optimizer.betas": {"value": [0.9, 0.95]},
            "logger.wandb.project": {"value": "a=b, c"},
        },
        command=[*command, "-m", "tests.wandb.rank", "${args_no_hyphens}"],
    )
    agent = client.start("wandb", "agent", "--count", "1", path)
    assert client.end(agent, 300) == 0, client.output()
    (run,) = client.runs
    assert run.ends == [("finished", 0)], client.output()
    lines = re.findall(r"RANK (\d) (\{.*\})", client.output())
    assert [rank for rank, _ in sorted(lines)] == ["0", "1"]
    for _, text in lines:
        settings = json.loads(text)
        assert settings["optimizer"]["lr"] == 0.0123
        assert settings["optimizer"]["betas"] == [0.9, 0.95]
        assert settings["training"]["gradient_clip_val"] is None
        assert settings["logger"]["wandb"]["project"] == "a=b, c"
    (record,) = records(client, path).values()
    assert record["state"] == "done"
    steps_are_whole(run, rows(record["path"]))
    begun = [given for given in client.server.store.requests_of("UpsertBucket")
             if given.get("project") == client.project]  # fmt: skip
    assert {given["name"] for given in begun if given.get("name")} == {run.name}
    assert run.starts == 1
