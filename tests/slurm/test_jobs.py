"""Arrays on a real cluster: never more at once than allowed, packing, ranks, cancel, retry."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, Slurm
from tests.slurm.sweeps import SmallSweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

QUICK = ("training.max_epochs=1", "training.limit_train_batches=2")


@pytest.fixture
def clear_slurm(slurm: Slurm) -> Iterator[Slurm]:
    """The cluster; its queue is emptied afterwards."""
    yield slurm
    if isinstance(slurm, Cluster):
        slurm.heal()


def test_forty_and_five_jobs_never_run_more_than_six_at_once(
    clear_slurm: Slurm, tmp_path: Path, data_dir: Path
) -> None:
    """45 trials are two arrays where MaxArraySize is 40; the GPU ceiling is 6 over both.

    The jobs sleep for a moment instead of training, to be quick.
    """
    slurm, sweep = clear_slurm, SmallSweep(clear_slurm, tmp_path, data_dir, 45)
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\nexec sleep 0.3\n")
    stub.chmod(0o755)
    settings = ("cluster=generic", "cluster.max_gpus=6", "cluster.cpus_per_task=1")
    done = sweep.train("submit", *settings, f"cluster.python={stub}", "--yes", "--json")
    plan = json.loads(done.stdout)
    jobs = plan["submitted"]
    assert slurm.job(jobs[0])["ArrayTaskThrottle"] == "6"
    if isinstance(slurm, Cluster):  # a live one has its own MaxArraySize
        assert plan["arrays"] == [40, 5]
        assert slurm.job(jobs[1])["Dependency"].startswith(f"afterany:{jobs[0]}")
    most, deadline = 0, time.monotonic() + 250
    while not slurm.over(*jobs):
        assert time.monotonic() < deadline, slurm.run("squeue", check=False)
        most = max(most, len(slurm.running("-j", ",".join(jobs))))
    assert most == 6
    assert {slurm.state(job) for job in jobs} == {"COMPLETED"}


def test_four_trials_share_a_gpu_in_one_job(
    clear_slurm: Slurm, tmp_path: Path, data_dir: Path
) -> None:
    sweep = SmallSweep(clear_slurm, tmp_path, data_dir, 4, step_seconds=1.0)
    settings = ("cluster=generic", "cluster.cpus_per_task=2", "cluster.trials_per_gpu=4", "--yes")
    assert json.loads(sweep.train("submit", *QUICK, *settings, "--json").stdout)["jobs"] == 1
    for trial in sweep.trials:
        sweep.wait_until(trial, "done")
    records = [sweep.record(trial) for trial in sweep.trials]
    assert len({record["slurm"]["job_id"] for record in records}) == 1
    assert max(r["begun"] for r in records) < min(r["updated"] for r in records), "side by side"


def test_two_nodes_of_two_ranks_train_one_trial(
    clear_slurm: Slurm, tmp_path: Path, data_dir: Path
) -> None:
    """Interrupted while ranks are out of step, it comes back and ends like the undisturbed."""
    ranks = ("cluster.nodes=2", "cluster.tasks_per_node=2", "training.max_epochs=1")
    sweep = SmallSweep(clear_slurm, tmp_path, data_dir, 1, "skewed", 0.2, skew_seconds=0.5)
    calm = SmallSweep(clear_slurm, tmp_path, data_dir, 1, "calm")
    (trial,) = sweep.trials
    sweep.train("submit", *ranks)
    calm.train("submit", *ranks)
    sweep.wait_for_step(trial, 5)
    clear_slurm.run("scancel", "--signal=USR2", sweep.job(trial))
    sweep.wait_until(trial, "done", 400)
    record = sweep.record(trial)
    assert record["attempts"] == 2
    assert record["slurm"]["restart_count"] == "1", "the same job"
    assert len(list((sweep.folder / trial).glob("log-*.txt"))) == 3, "ranks beside the first"
    calm.wait_until(trial, "done", 400)
    assert sweep.weights(trial) == calm.weights(trial)
    assert record["usage"]["samples"] >= 2, "of each attempt"


def test_a_rank_that_dies_ends_the_others(
    own_slurm: Cluster, clear_slurm: Slurm, tmp_path: Path, data_dir: Path
) -> None:
    sweep = SmallSweep(clear_slurm, tmp_path, data_dir, 1, step_seconds=0.5)
    (trial,) = sweep.trials
    ranks = ("cluster.nodes=2", "cluster.tasks_per_node=1", "cluster.restarts_after_kill=0")
    sweep.train("submit", *ranks)
    sweep.wait_for_step(trial, 5)
    job = sweep.job(trial)
    victim = _rank(own_slurm, job, 1)
    os.kill(victim, signal.SIGKILL)
    clear_slurm.wait_for(lambda: clear_slurm.state(job) == "FAILED", 30, "the job's end")


def _rank(slurm: Cluster, job: str, rank: int) -> int:
    """Return the process of a rank."""
    for name in slurm.layout.names:
        for pid in slurm.processes_on(name):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            mine = f"SLURM_JOB_ID={job}".encode() in variables
            if mine and f"SLURM_PROCID={rank}".encode() in variables:
                return pid
    raise AssertionError(f"{job}: no rank {rank}")


def test_cancel_stops_all_and_retry_runs_only_what_failed(
    own_slurm: Cluster, clear_slurm: Slurm, tmp_path: Path, data_dir: Path
) -> None:
    slurm, sweep = own_slurm, SmallSweep(own_slurm, tmp_path, data_dir, 3, step_seconds=0.3)
    killed, *others = sweep.trials
    sweep.train("submit", "cluster.restarts_after_kill=0")
    sweep.wait_for_attempt(killed, 1)
    os.kill(sweep.record(killed)["owner"]["pid"], signal.SIGKILL)
    for trial in others:
        sweep.wait_until(trial, "done")
    slurm.wait_for(lambda: slurm.state(sweep.job(killed)) == "FAILED", 120, "the job's end")
    rows = json.loads(sweep.train("status", "--json").stdout)["trials"]
    assert {row["id"]: row["state"] for row in rows} == {
        killed: "failed",
        **dict.fromkeys(others, "done"),
    }

    again = json.loads(sweep.train("retry", "cluster.max_jobs=1", "--json").stdout)
    assert again["jobs"] == 1
    sweep.wait_for_attempt(killed, 2)
    assert [sweep.record(trial)["attempts"] for trial in others] == [1, 1]
    sweep.wait_for_step(killed, 5)
    cancelled = json.loads(sweep.train("cancel", "--json").stdout)["cancelled"]
    assert cancelled == again["submitted"]
    slurm.wait_for(lambda: slurm.over(*cancelled), 60, "the job's end")
    assert sweep.state(killed) == "interrupted"
    assert slurm.state(cancelled[0]) == "CANCELLED"


SEARCH = """\
# Expected best value: none
# Cost: seconds
# Command: python slurm/SlurmTrain.py
program: trainer.py
method: bayes
run_cap: 4
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {min: 0.001, max: 0.01}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""


def test_a_search_is_jobs_that_share_it(clear_slurm: Slurm, tmp_path: Path, data_dir: Path) -> None:
    sweep = SmallSweep(clear_slurm, tmp_path, data_dir, 1)
    sweep.file.write_text(SEARCH)
    submitted = json.loads(sweep.train("submit", *QUICK, "cluster.max_jobs=2", "--json").stdout)
    assert submitted["jobs"] == 2

    def done() -> list[dict[str, object]]:
        rows = json.loads(sweep.train("status", "--json").stdout)["trials"]
        return [row for row in rows if row["state"] == "done"]

    again = json.loads(sweep.train("submit", *QUICK, "cluster.max_jobs=2", "--json").stdout)
    assert again["submitted"] == [], "no more workers than are allowed"
    jobs = submitted["submitted"]
    clear_slurm.wait_for(lambda: clear_slurm.over(*jobs), 240, "the workers' end")
    assert len(done()) == 4
    assert clear_slurm.state(jobs[0]) == "COMPLETED"
