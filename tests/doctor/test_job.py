"""``doctor --job``: what a compute node says of itself; and jobs that say nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.doctor import job
from mlmodeldev.doctor.line import Line, Scope
from mlmodeldev.settings.composition import compose_settings
from tests.doctor.conftest import Place
from tests.slurm.cluster import ROOT, Slurm


@pytest.mark.slow
def test_a_node_of_a_real_slurm_looks_at_itself(slurm: Slurm, tmp_path: Path) -> None:
    """All is well there but one thing: the cluster's GPUs are pretended, and torch sees none."""
    folders = (f"artefacts.{name}_dir={tmp_path}/{name}" for name in ("runs", "data"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), "doctor", "--job", "--json",
         "cluster=debug", "cluster.gpus_per_task=1", "logger=csv", "--wait", "200", *folders],
        cwd=ROOT, env=slurm.env, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    lines = json.loads(done.stdout)["lines"]
    here = [row for row in lines if not row["where"]]
    mine = {"disk", "modes", "quota"}  # the test machine's own
    assert {row["level"] for row in here if row["check"] not in mine} == {"OK"}, here
    there = {row["check"]: row for row in lines if row["where"]}
    well = {"shared", "python", "locks", "clock", "scontrol", "srun", "signals"}
    assert {there[name]["level"] for name in well} == {"OK"}, there
    assert "is RUNNING" in there["scontrol"]["what"]
    assert "SIGUSR1 reaches a step" in there["signals"]["what"]
    assert len({row["where"] for row in there.values()}) == 1
    assert [row["check"] for row in lines if row["level"] == "FAIL"] == ["torch"]
    assert "here is a GPU" in there["torch"]["what"]
    assert there["torch"]["mend"].endswith("pip install --force-reinstall torch")
    assert done.returncode == 1
    assert not (tmp_path / "runs" / ".doctor").exists()
    assert not slurm.running("-n", "doctor")


# --- jobs that say nothing, of a pretended Slurm


def lines_of(place: Place, seconds: float = 30, **commands: str) -> list[Line]:
    """Submit to these commands; the project is a folder with one file."""
    place.stubs(scancel='echo "$@" >> $HERE/cancelled', **commands)
    root, runs = place.folder / "project", place.folder / "runs"
    root.mkdir()
    (root / "mine.py").touch()
    settings = compose_settings(["cluster=debug", f"artefacts.runs_dir={runs}"])
    place.patch.setattr(job, "_LATE_SECONDS", 0.0)
    place.patch.setattr(job, "_LOOK_SECONDS", 0.01)
    lines = list(job.lines_of_job(Scope(settings, root), seconds))
    assert not (runs / ".doctor").exists()
    return lines


def test_a_job_that_can_not_begin_shows_its_last_words(place: Place) -> None:
    script = 'for last; do :; done; echo "no such module" > $(dirname $last)/log.txt; echo 12'
    (line,) = lines_of(place, sbatch=script)
    assert (line.level, line.check) == ("FAIL", "job")
    assert "job 12 ended without an answer: no such module" in line.what
    assert line.mend.startswith("sacct -j 12")


def test_a_runs_folder_that_nodes_do_not_share(place: Place) -> None:
    (line,) = lines_of(place, sbatch="echo 12")
    assert (line.level, line.mend) == ("FAIL", "python slurm/SlurmTrain.py artefacts.runs_dir=DIR")
    assert f"does {place.folder}/runs lie on a file system that all nodes share?" in line.what


def test_a_job_that_waits_is_cancelled(place: Place) -> None:
    squeue = "echo '12|PENDING|Priority|10:00|'"
    (line,) = lines_of(place, 0.5, sbatch="echo 12", squeue=squeue)
    assert line.level == "WARN"
    assert "PENDING, Priority" in line.what
    assert "--wait 3600" in line.mend
    assert (place.folder / "stubs" / "cancelled").read_text() == "12\n"


def test_a_job_that_sbatch_refuses(place: Place) -> None:
    (line,) = lines_of(place, sbatch="echo 'sbatch: error: no more jobs' >&2; exit 1")
    assert (line.level, line.what) == ("FAIL", "sbatch refuses: no more jobs")
