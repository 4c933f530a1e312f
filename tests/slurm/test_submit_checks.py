"""What can't work is refused before anything is submitted, and the plan shows what would be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.slurm.epilog import is_ours_to_requeue
from mlmodeldev.slurm.query import minutes_of
from tests.slurm.cluster import ROOT, Cluster, Slurm
from tests.slurm.scripts import check_golden
from tests.slurm.sweeps import SmallSweep


@pytest.fixture
def sweep(own_slurm: Slurm, tmp_path: Path, data_dir: Path) -> SmallSweep:
    return SmallSweep(own_slurm, tmp_path, data_dir, 3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cluster.partition=mian", "did you mean 'main'? (there are: high, main, nograce, short)"),
        ("cluster.account=nobody", "(there are: root)"),
        ("cluster.qos=hurry", "(there are: normal)"),
        ("cluster.gpus_per_task=3", "has 2"),
        ("cluster.cpus_per_task=5", "has 4"),
        ("cluster.mem_gb=64", "largest node of partition main has 3.9"),
        ("cluster.nodes=11", "partition main has 10"),
        ("cluster.gpu_type=h100", "there is none"),
        ("cluster.python=/nowhere/python", "no such interpreter"),
        ("artefacts.runs_dir=/dev/shm/runs", "in the memory of this machine"),
        ("cluster.minuts=3", "did you mean 'minutes'"),
        ("cluster=debgu", "did you mean 'debug'"),
    ],
)
def test_what_slurm_would_refuse_or_never_start(sweep: SmallSweep, setting, message) -> None:
    done = sweep.train("submit", setting, check=False)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert setting.partition("=")[0] in done.stderr
    assert "Traceback" not in done.stderr
    assert not sweep.runs.exists()
    assert not sweep.slurm.run("squeue", "-h")


def test_a_time_limit_over_the_partitions(sweep: SmallSweep) -> None:
    settings = ("cluster.partition=short", "cluster.minutes=6")
    done = sweep.train("submit", *settings, check=False)
    assert done.returncode == 2
    assert "partition short allows 5; longer: main, nograce, high" in done.stderr


def test_a_gpu_ceiling_under_one_job(sweep: SmallSweep) -> None:
    settings = (
        "cluster=generic",
        "cluster.max_gpus=3",
        "cluster.nodes=2",
        "cluster.tasks_per_node=2",
    )
    done = sweep.train("submit", *settings, check=False)
    assert done.returncode == 2
    assert "cluster.max_gpus=3: one job alone takes 4 GPUs" in done.stderr


def test_many_gpu_hours_want_a_yes(sweep: SmallSweep) -> None:
    done = sweep.train("submit", "cluster=generic", "cluster.minutes=100", check=False)
    assert done.returncode == 2
    assert "5 GPU-hours are more than cluster.confirm_gpu_hours=4: add --yes" in done.stderr
    assert not sweep.slurm.run("squeue", "-h")


def test_no_slurm_on_this_machine(tmp_path: Path, data_dir: Path) -> None:
    sweep = SmallSweep(Slurm(), tmp_path, data_dir, 1)
    sweep.slurm.env["PATH"] = str(tmp_path)
    done = sweep.train("submit", check=False)
    assert done.returncode == 2
    assert "there is no Slurm on this machine (sbatch)" in done.stderr
    plan = sweep.train("plan", "--json")
    assert "its limits are not checked" in plan.stderr
    assert json.loads(plan.stdout)["jobs"] == 1


def test_the_plan_shows_the_script_and_submits_nothing(own_slurm: Slurm, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), "plan", "--json"]
    settings = ["cluster=generic", "cluster.max_gpus=4", "cluster.mem_gb=2", "cluster.nodes=2"]
    settings.append("cluster.cpus_per_task=4")
    done = subprocess.run(
        [*command, *settings, f"artefacts.runs_dir={tmp_path}/runs"],
        env=own_slurm.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert set(plan["trials"][0]) == {"id", "overrides", "state"}
    assert plan["jobs"] == len(plan["trials"])
    assert plan["at_once"] == 2
    assert plan["gpu_hours"] == plan["jobs"] * 2
    script = plan["script"]
    check_golden(script, "array", tmp_path)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert not (tmp_path / "runs").exists()


def test_jobs_keep_the_code_that_they_were_submitted_with(sweep: SmallSweep) -> None:
    """Held jobs, then another sweep file: the snapshot stays, and a second submit adds nothing."""
    hold = "+cluster.sbatch.hold=true"
    first = json.loads(sweep.train("submit", hold, "--json").stdout)["submitted"]
    (copy,) = (sweep.runs / ".snapshots").iterdir()
    assert (copy / "trainer.py").read_bytes() == (ROOT / "trainer.py").read_bytes()
    snapshot = json.loads((copy / "snapshot.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{40}", snapshot["sha"])
    assert not (copy / ".venv").exists()

    again = json.loads(sweep.train("submit", hold, "--json").stdout)
    assert again["submitted"] == []
    assert {trial["state"] for trial in again["trials"]} == {"queued"}

    assert json.loads(sweep.train("clean", "--json").stdout)["removed"] == []
    assert json.loads(sweep.train("cancel", "--json").stdout)["cancelled"] == first
    sweep.slurm.wait_for(lambda: not sweep.slurm.run("squeue", "-h"), 30, "an empty queue")
    assert json.loads(sweep.train("clean", "--json").stdout)["removed"] == [], "it is young"
    os.utime(copy, (0, 0))
    assert json.loads(sweep.train("clean", "--json").stdout)["removed"] == [copy.name]


def test_without_accounting_nothing_is_missing(tmp_path: Path, data_dir: Path) -> None:
    """A cluster without slurmdbd: plan, submit and status work."""
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\nexec sleep 60\n")
    stub.chmod(0o755)
    with Cluster(nodes=1, accounting=False) as bare:
        sweep = SmallSweep(bare, tmp_path, data_dir, 2)
        sweep.train("submit", f"cluster.python={stub}")
        bare.wait_for(bare.running, 30)
        rows = json.loads(sweep.train("status", "--json").stdout)["trials"]
        assert {row["state"] for row in rows} == {"queued"}
        assert {row["node"] for row in rows} == {"n1"}


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("UNLIMITED", None),
        ("5:00", 5),
        ("1-12:00:00", 2160),
        ("02:30:00", 150),
        ("7-00:00:00", 10080),
    ],
)
def test_slurms_times(text, minutes) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("fields", "ours"),
    [
        ({"JobState": "RUNNING"}, True),
        ({"JobState": "COMPLETING", "RunTime": "00:01:03", "TimeLimit": "00:01:00"}, True),
        ({"JobState": "COMPLETING", "RunTime": "00:00:40", "TimeLimit": "00:01:00"}, False),
        ({"JobState": "COMPLETING", "RunTime": "1-00:00:40", "TimeLimit": "UNLIMITED"}, False),
        ({"JobState": "CANCELLED"}, False),
        ({"JobState": "PENDING"}, False),
        ({}, False),
    ],
)
def test_who_requeues(fields, ours) -> None:
    assert is_ours_to_requeue(fields) is ours
