"""The test cluster itself: several nodes, GPUs, accounting, side by side, no leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.slurm import machine
from tests.slurm.cluster import ROOT, Cluster, Slurm

START_AND_HANG = """\
import sys, time
from tests.slurm.cluster import Cluster
cluster = Cluster(nodes=1, accounting=False)
cluster.start()
cluster.sbatch("-o", "/dev/null", "--wrap", "srun sleep 600")
cluster.wait_for(cluster.running, 30)
print(cluster.folder, flush=True)
time.sleep(600)
"""


def test_a_job_sees_its_nodes_and_gpus(slurm: Slurm, tmp_path: Path) -> None:
    output = tmp_path / "output"
    job = slurm.sbatch(
        *("-N2", "--ntasks-per-node=2", "--gres=gpu:2", "-o", output),
        *("--wrap", 'srun bash -c "echo $(hostname) $CUDA_VISIBLE_DEVICES"'.replace("$", r"\$")),
    )
    slurm.wait_for(lambda: slurm.state(job) == "COMPLETED", 60, "the job's end")
    lines = sorted(output.read_text().splitlines())
    assert len(lines) == 4
    assert len({line.split()[0] for line in lines}) == 2, "two nodes with names of their own"
    assert {line.split()[1] for line in lines} == {"0,1"}


def test_sacct_knows_ended_jobs(own_slurm: Cluster) -> None:
    job = own_slurm.sbatch("-o", "/dev/null", "--wrap", "exit 3")

    def accounted() -> bool:
        return any(row[1:3] == ["FAILED", "3:0"] for row in own_slurm.sacct(job))

    own_slurm.wait_for(accounted, 30, "sacct")


def test_a_dead_owners_cluster_is_cleared_away(own_slurm: Cluster) -> None:
    """Another cluster starts beside this one; its owner is killed; the next start removes it."""
    owner = subprocess.Popen(
        [sys.executable, "-c", START_AND_HANG], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    assert machine.processes(folder)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    machine.end_orphans()
    assert not folder.exists()
    assert not machine.processes(folder)
    assert folder.name not in Path("/etc/hosts").read_text()
    assert own_slurm.run("sinfo", "-h", "-o", "%D", "-p", "main") == "10", "ours is untouched"
