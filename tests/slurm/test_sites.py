"""The profiles of clusters, and limits of QOS, against a Slurm that has what they name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import ROOT, Cluster
from tests.slurm.scripts import check_golden
from tests.slurm.sweeps import SmallSweep

PARTITIONS = {"hec": "gpu-short", "bede": "gh", "mila": "long"}
EXTRA = "\n".join(
    [
        "AccountingStorageEnforce=associations,limits,qos,wckeys",
        "TrackWCKey=yes",
        "SchedulerParameters=bf_interval=2,bf_resolution=1,batch_sched_delay=1,max_array_tasks=4",
        *(f"PartitionName={name} Nodes=ALL State=UP" for name in PARTITIONS.values()),
        "PartitionName=gated Nodes=ALL State=UP",
        "PartitionName=unlisted Nodes=ALL State=UP Hidden=YES MaxTime=200",
    ]
)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Nodes as large as the profiles ask for, their partitions, and QOS with limits."""
    if request.config.getoption("--cluster-live"):
        pytest.skip("a live cluster has its own partitions")
    with Cluster(nodes=2, cpus=16, memory=64000, gpus=4, extra=EXTRA) as cluster:
        for words in (
            "add account bdtest01",
            "add user root account=bdtest01",
            "add qos tight MaxSubmitJobsPerUser=3 MaxTRESPerUser=gres/gpu=2"
            " MaxTRESPerJob=gres/gpu=1",
            "add qos gate MaxSubmitJobsPerUser=2",
            "add qos brief MaxWall=00:10:00",
            "modify user root set qos=normal,tight,gate,brief",
            "add user root wckey=maths",
        ):
            cluster.run("sacctmgr", "-i", *words.split())
        cluster.wait_for(lambda: _has_qos(cluster), 60, "slurmctld to know the QOS")
        yield cluster


def _has_qos(cluster: Cluster) -> bool:
    """Whether what sacctmgr was told has come to the controller."""
    cluster.run("scontrol", "update", "PartitionName=gated", "QOS=gate", check=False)
    words = ("--test-only", "--qos=tight", "--time=1", "--wrap", "true")
    done = subprocess.run(["sbatch", *words], env=cluster.env, capture_output=True, check=False)
    return "QoS=gate" in cluster.scontrol("show", "partition", "gated") and not done.returncode


def plan(site: Cluster, *settings: str, check: bool = True) -> Any:
    command = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), "plan", "--json", *settings]
    done = subprocess.run(command, env=site.env, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return json.loads(done.stdout) if check else done


@pytest.mark.parametrize("name", PARTITIONS)
def test_slurm_takes_what_a_profile_asks_for(site: Cluster, tmp_path: Path, name: str) -> None:
    account = ["cluster.account=bdtest01"] if name == "bede" else []
    made = plan(site, f"cluster={name}", *account, f"artefacts.runs_dir={tmp_path}/runs")
    script = tmp_path / "script.sh"
    script.write_text(made["script"])
    done = subprocess.run(
        ["sbatch", "--test-only", str(script)],
        env=site.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"in partition {PARTITIONS[name]}" in done.stderr
    check_golden(made["script"], name, tmp_path)


def test_what_a_qos_does_not_take_is_left_for_later(
    site: Cluster, tmp_path: Path, data_dir: Path
) -> None:
    sweep = SmallSweep(site, tmp_path, data_dir, 5)
    settings = ("cluster=generic", "cluster.cpus_per_task=1", "+cluster.sbatch.hold=true")
    tight = (*settings, "cluster.qos=tight")
    done = sweep.train("submit", "--yes", *tight, "--json")
    made = json.loads(done.stdout)
    assert (made["jobs"], made["at_once"], made["left_for_later"]) == (3, 2, 2)
    assert "2 more trials do not fit into the queue" in done.stderr
    assert len(site.run("squeue", "-h", "-r").splitlines()) == 3
    refused = ("sbatch", "--qos=tight", "--time=1", "--hold", "--wrap", "true")
    more = subprocess.run(refused, env=site.env, capture_output=True, text=True, check=False)
    assert "violates accounting/QOS policy" in more.stderr, "the limit is Slurm's own"
    again = json.loads(sweep.train("submit", *tight, "--json").stdout)
    assert (again["submitted"], again["left_for_later"]) == ([], 2)
    sweep.train("cancel")
    site.wait_for(lambda: not site.run("squeue", "-h"), 60, "an empty queue")

    made = json.loads(sweep.train("plan", *settings, "cluster.partition=gated", "--json").stdout)
    assert (made["jobs"], made["left_for_later"]) == (2, 3), "the partition's own QOS"
    done = sweep.train("plan", *tight, "cluster.gpus_per_task=2", check=False)
    assert done.returncode == 2
    assert "a job takes 2 GPUs; its QOS or account allows a job 1" in done.stderr


def test_what_keeps_jobs_waiting_for_ever_is_reported(site: Cluster) -> None:
    """The real Slurm takes such a job, and never starts it: QOSMaxWallDurationPerJobLimit."""
    done = plan(site, "cluster=generic", "cluster.qos=brief", "cluster.minutes=11", check=False)
    assert done.returncode == 2
    assert "cluster.minutes=11: its QOS or account allows a job 10" in done.stderr
    job = site.sbatch("--qos=brief", "--time=11", "-o", "/dev/null", "--wrap", "true")
    site.wait_for(lambda: site.job(job).get("Reason", "").startswith("QOSMaxWall"), 60, "a reason")
    site.run("scancel", job)


def test_arrays_are_cut_wckeys_left_alone_and_partitions_may_be_hidden(
    site: Cluster, tmp_path: Path, data_dir: Path
) -> None:
    """sbatch refuses arrays above max_array_tasks, and any wckey but the user's own."""
    sweep = SmallSweep(site, tmp_path, data_dir, 5)
    settings = ("cluster=generic", "cluster.partition='unlisted,long'", "+cluster.sbatch.hold=true")
    made = json.loads(sweep.train("submit", "--yes", *settings, "--json").stdout)
    assert made["arrays"] == [4, 1]
    fields = site.job(made["submitted"][0])
    assert fields["Partition"] == "unlisted,long"
    # the share of one of four GPUs
    assert "--cpus-per-task=4" in made["script"]
    assert "--mem=16000M" in made["script"]
    rows = json.loads(sweep.train("status", "--json").stdout)["trials"]
    assert {row["state"] for row in rows} == {"queued"}, "squeue hides what is hidden"
    sweep.train("cancel")
    site.wait_for(lambda: not site.run("squeue", "-a", "-h"), 60, "an empty queue")
    other = (*settings, "+cluster.sbatch.wckey=submitit")
    refused = sweep.train("submit", "--yes", *other, check=False)
    assert "sbatch refuses" in refused.stderr, "enforced they are"
    sweep.train("cancel")
