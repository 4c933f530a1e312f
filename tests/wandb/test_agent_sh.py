"""`sbatch slurm/agent.sh` on a real Slurm: whatever interrupts a job, its trial is finished."""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.wandb.conftest import ROOT, TINY, Client, steps_are_whole
from tests.wandb.server import KEY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = ROOT / "slurm" / "agent.sh"
EPOCHS = 14


def submit(client: Client, slurm: Cluster, path: str, *options: str, env: str = "") -> str:
    """Submit as the README says; the key lies in a `.netrc`, as `wandb login` leaves it."""
    home = client.folder / "home"
    home.mkdir(exist_ok=True)
    machine = client.server.url.partition("//")[2]
    (home / ".netrc").write_text(f"machine {machine} login user password {KEY}\n")
    (home / ".netrc").chmod(0o600)
    given = {
        "HOME": str(home),
        "WANDB_BASE_URL": client.server.url,
        "MLMODELDEV_PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
    }
    export = ",".join(f"{name}={value}" for name, value in given.items())
    log = client.folder / "process-%a.log"
    return slurm.sbatch(
        f"--export={export}{env}", f"--output={log}", f"--chdir={ROOT}", "--cpus-per-task=1",
        "--mem=200", "--time=20", *options, SCRIPT, path,
    )  # fmt: skip


def states(slurm: Cluster, job: str) -> dict[str, str]:
    """Return the state of each array task; nothing while Slurm is too busy."""
    answer = slurm.run("squeue", "-h", "-r", "-t", "all", "-o", "%K %T", "-j", job, check=False)
    return dict(line.split(maxsplit=1) for line in answer.splitlines())


def ended(slurm: Cluster, job: str) -> bool:
    """Whether all tasks have ended.

    Slurm lets a requeued one wait until its old credential has expired. That can't be cut short:
    a job that starts again within the same second is killed ("Job credential revoked").
    """
    results = states(slurm, job)
    return bool(results) and set(results.values()) <= {"COMPLETED", "FAILED", "CANCELLED"}


def trials(client: Client, path: str = "*") -> dict[str, dict]:
    """The records of a sweep's trials, by the array task that ran each last."""
    results = {}
    for file in client.runs_dir.glob(f"{path.rpartition('/')[2]}/*/trial.json"):
        record = json.loads(file.read_text())
        if "slurm" in record:
            results[record["slurm"].get("array_task_id", "")] = {**record, "path": file.parent}
    return results


def only_trial(client: Client, path: str) -> dict:
    """The record of a sweep's one trial."""
    (file,) = client.runs_dir.glob(f"{path.rpartition('/')[2]}/*/trial.json")
    return {**json.loads(file.read_text()), "path": file.parent}


def rows(folder: Path) -> int:
    file = folder / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.is_file() else 0


def under_way(client: Client, count: int, path: str = "*") -> dict[str, dict]:
    """Wait until so many trials have rows, and a checkpoint to go back to."""

    def ready() -> bool:
        results = trials(client, path)
        return len(results) == count and all(rows(each["path"]) > 8 for each in results.values())

    client.until(ready, "trials under way", 240)
    return trials(client, path)


def undisturbed(client: Client, rates: list[float]) -> dict[float, bytes]:
    """The weights of the same trials without any of it."""
    weights = {}
    for rate in rates:
        folder = client.folder / "undisturbed"
        tiny = {**TINY, "training.max_epochs": EPOCHS, "optimizer.lr": rate}
        process = client.trial(
            f"artefacts.runs_dir={folder}", f"artefacts.trial=t{rate}", "logger=csv",
            *(f"{name}={str(value).lower()}" for name, value in tiny.items()),
        )  # fmt: skip
        process.join(200)
        assert process.exitcode == 0, client.output()
        weights[rate] = (folder / "single" / f"t{rate}" / "last/model.safetensors").read_bytes()
    return weights


def slow_trial(client: Client, slurm: Cluster, *options: str) -> tuple[str, str]:
    """Submit a trial that can't end before it is requeued; return its task and its sweep."""
    parameters = {
        "optimizer.lr": {"values": [0.01]},
        "training.max_epochs": {"value": EPOCHS},
        "model._target_": {"value": "tests.slurm.slow_trainer.SlowEncoder"},
    }
    path = client.sweep(parameters)
    job = submit(client, slurm, path, "--array=1", *options, env=",STEP_SECONDS=0.5")
    return f"{job}_1", path


def preempt(slurm: Cluster, task: str) -> None:
    """Let Slurm itself take a task's node away for a job of higher priority, and requeue."""
    node = slurm.run("squeue", "-h", "-o", "%N", "-j", task)
    options = ("-p", "high", "-w", node, "-c", "4", "--mem=0", "-o", "/dev/null")
    urgent = slurm.sbatch(*options, "--wrap", "sleep 1")
    slurm.wait_for(lambda: slurm.state(urgent) in ("RUNNING", "COMPLETED"), 90, "preemption")


def check_return(client: Client, slurm: Cluster, task: str, path: str, weights: bytes) -> None:
    """The same job went on with the same trial, in the same run, to the same weights."""
    job = task.partition("_")[0]
    client.until(lambda: ended(slurm, job), f"the end of {task}", 300)
    assert set(states(slurm, job).values()) == {"COMPLETED"}, client.output()
    record = only_trial(client, path)
    assert record["state"] == "done"
    assert int(record["slurm"]["restart_count"]) >= 1, "the same job"
    assert "going on from step" in (record["path"] / "log.txt").read_text()
    (run,) = (run for run in client.runs if run.name == record["wandb_id"])
    steps_are_whole(run, rows(record["path"]))
    assert (record["path"] / "last" / "model.safetensors").read_bytes() == weights


def test_every_interruption_brings_the_same_trial_back(client: Client, own_slurm: Cluster):
    slurm = own_slurm
    rates = [0.01, 0.02, 0.03, 0.04]
    path = client.sweep(
        {"optimizer.lr": {"values": rates}, "training.max_epochs": {"value": EPOCHS}},
    )
    limited, at_its_limit = slow_trial(client, slurm, "--signal=B:USR1@120")
    preempted, for_another = slow_trial(client, slurm, "--exclusive")
    job = submit(client, slurm, path, "--array=1-4", "--ntasks-per-node=1", "--exclusive")
    # what the server says meanwhile keeps no trial from its warning
    for sweep, odd in ((path, "status 401"), (at_its_limit, "headers without end"),
                       (for_another, "commands odd")):  # fmt: skip
        client.server.faults.odd(odd, f"Heartbeat {sweep.rpartition('/')[2]} busy", 12)
    first = under_way(client, 4, path)
    slurm.run("scancel", "--signal=USR1", "--batch", f"{job}_1")  # as before the time limit
    slurm.scontrol("requeue", f"{job}_2")
    slurm.restart_slurmctld()
    os.kill(first["3"]["owner"]["pid"], signal.SIGKILL)
    node = slurm.run("squeue", "-h", "-o", "%N", "-j", f"{job}_4")
    slurm.kill_node(node)
    slurm.start_node(node)
    under_way(client, 1, at_its_limit)
    slurm.bring_limit_near(limited)
    under_way(client, 1, for_another)
    preempt(slurm, preempted)
    with ThreadPoolExecutor(1) as aside:
        calm = aside.submit(undisturbed, client, rates)
        slurm.wait_for_requeue(limited, 20)
        whole = calm.result()
    client.until(lambda: ended(slurm, job), "all jobs' end", 400)
    assert set(states(slurm, job).values()) == {"COMPLETED"}, client.output()
    check_return(client, slurm, limited, at_its_limit, whole[0.01])
    check_return(client, slurm, preempted, for_another, whole[0.01])
    assert "interrupted by SIGUSR1" in client.output()
    assert [run.ends[-1] for run in client.runs] == [("finished", 0)] * 6, client.output()
    assert len(client.runs) == 6
    for task, before in first.items():
        record = {**json.loads((before["path"] / "trial.json").read_text()), "path": before["path"]}
        assert record["wandb_id"] == before["wandb_id"]
        own = (client.folder / f"process-{task}.log").read_text()
        assert f"going on with run {record['wandb_id']}" in own, "each job came back to its own"
        assert (record["state"], record["attempts"]) == ("done", 2)
        run = next(run for run in client.runs if run.name == record["wandb_id"])
        steps_are_whole(run, rows(record["path"]))
        assert [end for end in run.ends if end[0] == "finished"] == [("finished", 0)]
        weights = (record["path"] / "last" / "model.safetensors").read_bytes()
        assert weights == whole[record["overrides"]["optimizer.lr"]]
    log = client.output()
    assert log.count("===== begin") >= 7
    assert "the sweep is over" in log
    assert KEY not in log


@pytest.mark.project
def test_a_trial_of_two_nodes_comes_back_on_all_ranks(client: Client, own_slurm: Cluster):
    """The same sweep twice, once undisturbed: one run each, of four ranks, with equal weights."""
    parameters = {"optimizer.lr": {"values": [0.01]}, "training.max_epochs": {"value": 8}}
    # another number of processes than these four is refused by the trial
    parameters |= {"training.devices": {"value": 2}, "training.num_nodes": {"value": 2}}
    paths = [client.sweep(parameters) for _ in range(2)]
    ranks = ("--array=1", "--nodes=2", "--ntasks-per-node=2")
    job, calm = (submit(client, own_slurm, path, *ranks) for path in paths)

    def ready() -> bool:
        results = list(client.runs_dir.glob(f"{paths[0].rpartition('/')[2]}/*/trial.json"))
        return bool(results) and rows(results[0].parent) > 8

    client.until(ready, "a trial under way", 240)
    own_slurm.run("scancel", "--signal=USR1", "--batch", f"{job}_1")
    client.until(lambda: ended(own_slurm, job) and ended(own_slurm, calm), "the jobs' end", 400)
    disturbed, other = (only_trial(client, path) for path in paths)
    assert (disturbed["state"], disturbed["attempts"]) == ("done", 2), client.output()
    assert (other["state"], other["attempts"]) == ("done", 1), client.output()
    assert len(client.runs) == 2
    for run in client.runs:
        steps_are_whole(run)
        assert [end for end in run.ends if end[0] == "finished"] == [("finished", 0)]
    weights = [(r["path"] / "last" / "model.safetensors").read_bytes() for r in (disturbed, other)]
    assert weights[0] == weights[1]


def test_three_failures_fail_the_job_and_scancel_means_stop(client: Client, own_slurm: Cluster):
    rates = [0.01, 0.02, 0.03, 0.04, 0.05]
    wrong = client.sweep({"optimizer.lr": {"values": rates}, "model.num_layers": {"value": 0}})
    long = client.sweep({"optimizer.lr": {"values": [0.01]}, "training.max_epochs": {"value": 400}})
    failing = submit(client, own_slurm, wrong, "--array=1")
    stopped = submit(client, own_slurm, long, "--array=1")
    name = long.rpartition("/")[2]
    going_on = lambda: any(rows(f) > 8 for f in client.runs_dir.glob(f"{name}/*"))  # noqa: E731
    client.until(going_on, "a trial under way", 240)
    own_slurm.run("scancel", stopped)
    client.until(lambda: ended(own_slurm, failing) and ended(own_slurm, stopped), "the jobs' end")
    assert set(states(own_slurm, failing).values()) == {"FAILED"}
    assert set(states(own_slurm, stopped).values()) == {"CANCELLED"}
    record = only_trial(client, long)
    assert (record["state"], record["attempts"]) == ("interrupted", 1)
    assert "3 trials in a row have failed; 0 trials ended well, 3 failed" in client.output()
    records = client.runs_dir.glob(f"{wrong.rpartition('/')[2]}/*/trial.json")
    assert [json.loads(file.read_text())["state"] for file in records] == ["failed"] * 3
