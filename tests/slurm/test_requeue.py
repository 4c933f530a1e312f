"""A job that leaves its node for good: back in the queue, kept from where it was."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.slurm.cluster import ROOT, Slurm

LEAVE = """\
import os
from mlmodeldev.slurm.query import own_task_name, requeue_job
requeue_job(own_task_name(), without=os.environ["SLURMD_NODENAME"])
"""


def test_a_job_comes_back_to_other_nodes_than_its_own(slurm: Slurm, tmp_path: Path) -> None:
    """Slurm lets the excluded nodes of a pending job be changed, not those of a running one."""
    others = slurm.run("sinfo", "-h", "-N", "-o", "%N", "-p", "main").split()[-1]
    (tmp_path / "leave.py").write_text(LEAVE)
    script = tmp_path / "job.sh"
    line = f"PYTHONPATH={ROOT} exec {sys.executable} {tmp_path}/leave.py"
    script.write_text(f"#!/bin/bash\necho $SLURMD_NODENAME >> {tmp_path}/nodes\n{line}\n")
    job = slurm.sbatch("--array=3", "--requeue", "-x", others, "-o", tmp_path / "log", script)
    task = f"{job}_3"
    slurm.wait_for(lambda: slurm.job(task).get("Restarts") == "1", 60, "the requeue")
    node = (tmp_path / "nodes").read_text().split()[0]

    def excluded() -> bool:
        return set(slurm.job(task)["ExcNodeList"].split(",")) == {others, node}

    try:
        slurm.wait_for(excluded, 30, "the exclusion")
    finally:
        slurm.run("scancel", job)
    assert "scontrol" not in (tmp_path / "log").read_text(), "nothing was refused"
