"""Jobs go to the cluster that is watched and cancelled, whatever names another."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlmodeldev.doctor.checks.cluster import mend_of
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.schema import Cluster
from mlmodeldev.slurm.limits import Limits
from mlmodeldev.slurm.plan import state
from mlmodeldev.slurm.preflight import check_cluster
from mlmodeldev.slurm.submission import Submission, live_arrays, trial_jobs
from mlmodeldev.slurm.submit import submit
from tests.slurm.stubs import Stubs

CLUSTER = Cluster(launcher="slurm", cpus_per_task=1, gpus_per_task=0)
OWN = 'echo "ClusterName             = mine"'


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubs:
    """A site whose queue is empty."""
    for name in [n for n in os.environ if n.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    made = Stubs(tmp_path, monkeypatch)
    made.add("squeue", "exit 0")
    return made


@pytest.fixture
def sweep_folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "small"


def submit_one(sweep_folder: Path, cluster: Cluster = CLUSTER) -> str:
    submission = Submission.new(sweep_folder, sweep_folder)
    return submit(submission, cluster, "small", [None], [["a"]])  # type: ignore[list-item]


def choose(monkeypatch: pytest.MonkeyPatch, where: str, names: str) -> Cluster:
    if where.isupper():
        monkeypatch.setenv(where, names)
        return CLUSTER
    return CLUSTER.model_copy(update={"sbatch": {"clusters": names}})


@pytest.mark.parametrize("where", ["SBATCH_CLUSTERS", "SLURM_CLUSTERS", "cluster.sbatch.clusters"])
@pytest.mark.parametrize("names", ["other", "mine,other", "all"])
def test_jobs_for_another_cluster_are_refused(
    stubs: Stubs, sweep_folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, names: str
) -> None:
    """Its queue is not ours: trials there would be missing, due, and submitted again."""
    stubs.add("scontrol", OWN)
    stubs.add("sbatch", 'touch "$HERE/submitted"; echo "4242;other"')
    cluster = choose(monkeypatch, where, names)
    message = rf"^{where}={names}: jobs go to the cluster of this machine \(mine\)"
    with pytest.raises(UsageError, match=message):
        submit_one(sweep_folder, cluster)
    with pytest.raises(UsageError, match=message) as refused:
        check_cluster(cluster, Limits(), Path.home())
    assert (mend_of(str(refused.value)) == f"unset {where}") is where.isupper()
    assert not (stubs.folder / "submitted").exists()
    assert trial_jobs(sweep_folder) == {}


@pytest.mark.parametrize("where", ["SBATCH_CLUSTERS", "SLURM_CLUSTERS", "cluster.sbatch.clusters"])
def test_ones_own_cluster_may_be_named(
    stubs: Stubs, sweep_folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    stubs.add("scontrol", OWN)
    stubs.add("sbatch", 'env > "$HERE/environment"; echo "4242;mine"')
    assert submit_one(sweep_folder, choose(monkeypatch, where, "Mine")) == "4242"
    assert "_CLUSTERS=" not in stubs.read("environment")


def test_the_clusters_of_an_outer_job_choose_nothing(
    stubs: Stubs, sweep_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs.add("sbatch", 'env > "$HERE/environment"; echo 4242')
    for name in ("SBATCH_CLUSTERS", "SLURM_CLUSTERS"):
        monkeypatch.setenv(name, "other")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert submit_one(sweep_folder) == "4242"
    assert "_CLUSTERS=" not in stubs.read("environment")


@pytest.mark.parametrize("printed", ["4242;other", "Submitted batch job 4242 on cluster other"])
@pytest.mark.parametrize(("scancel", "then"), [("true", "missing"), ("exit 1", "queued")])
def test_a_job_that_a_site_sends_to_another_cluster_is_ended_there(
    stubs: Stubs, sweep_folder: Path, printed: str, scancel: str, then: str
) -> None:
    """Where that fails, it counts as queued until `cancel` gives it up."""
    stubs.add("scontrol", OWN)
    stubs.add("sbatch", f'echo "{printed}"')
    stubs.add("scancel", f'echo "$*" >> "$HERE/words"; {scancel}')
    with pytest.raises(UsageError, match="job 4242 onto cluster other, and this machine's is mine"):
        submit_one(sweep_folder)
    assert stubs.read("words").split() == ["-M", "other", "4242"]
    waiting: Any = SimpleNamespace(state="missing", record={}, runs_in_wandb=False)
    jobs = trial_jobs(sweep_folder)
    assert state(waiting, jobs.get("a")) == then
    assert live_arrays(sweep_folder) == [], "4242 is another's here, and is not cancelled"


def test_a_job_whose_cluster_is_unsure_is_not_submitted_again(
    stubs: Stubs, sweep_folder: Path
) -> None:
    stubs.add("scontrol", "exit 1")
    stubs.add("sbatch", 'echo "4242;other"')
    with pytest.raises(UsageError, match="Slurm does not answer"):
        submit_one(sweep_folder)
    assert set(trial_jobs(sweep_folder)) == {"a"}
