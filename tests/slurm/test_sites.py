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
        "AccountingStorageEnforce=associations,limits,qos",
        *(f"PartitionName={name} Nodes=ALL State=UP" for name in PARTITIONS.values()),
        "PartitionName=gated Nodes=ALL State=UP",
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
            "modify user root set qos=normal,tight,gate",
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
    assert "a job takes 2 GPUs; its QOS allows a job 1" in done.stderr
