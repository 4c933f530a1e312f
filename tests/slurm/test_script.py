"""What of submitit's inside we rely on; here it is missed first, with or without a Slurm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlmodeldev.settings.schema import Cluster
from mlmodeldev.slurm.script import batch_script
from mlmodeldev.slurm.submit import ArrayExecutor
from tests.slurm.scripts import check_golden


def test_the_script_is_written_where_there_is_no_slurm(tmp_path: Path) -> None:
    """The same script as a cluster's plan shows, from submitit's ``_make_sbatch_string``."""
    runs = tmp_path / "runs"
    submission, snapshot = runs / "digits/.jobs/SUBMISSION", runs / ".snapshots/CODE"
    cluster = Cluster(
        launcher="slurm", name="generic", nodes=2, gpus_per_task=1, mem_gb=2, max_gpus=4
    )
    script = batch_script(cluster, "digits", submission, snapshot, count=4, throttle=2)
    check_golden(script, "array", tmp_path)


@pytest.mark.parametrize("count", [1, 3])
def test_a_command_is_submitted_as_a_job_or_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """By submitit's ``_submit_command``, to a stand-in for sbatch."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, line in {"srun": "exit 1", "sbatch": "echo Submitted batch job 12"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    folder = tmp_path / "submission"
    folder.mkdir()
    executor = ArrayExecutor(folder)
    executor.update_parameters(job_name="digits", array_parallelism=2)
    assert executor.submit_command(f"{sys.executable} -V", count) == "12"
    script = (folder / "12_submission.sh").read_text()
    assert f"{sys.executable} -V" in script
    assert ("#SBATCH --array=0-2%2" in script) is (count > 1)
