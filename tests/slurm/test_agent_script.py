"""`slurm/agent.sh` finds its Python, or says in one line why not; a broken machine is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlmodeldev.slurm import agent, query
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.trial.task import TrialTask

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def program(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    file.chmod(0o755)
    return file


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without an environment."""
    folder = tmp_path / "project"
    (folder / "slurm").mkdir(parents=True)
    shutil.copy(ROOT / "slurm" / "agent.sh", folder / "slurm")
    (folder / "trainer.py").touch()
    return folder


def call(project: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "slurm/agent.sh", "--help"], cwd=project, check=False, timeout=100,
        env={**CLEAN, "HOME": str(project.parent), **variables}, capture_output=True, text=True,
    )  # fmt: skip


def test_without_an_environment_it_says_what_to_do(project: Path) -> None:
    done = call(project)
    assert done.returncode == 2
    assert done.stderr.startswith("agent.sh: no python: run 'pip install -r requirements.txt'")
    assert done.stderr.count("\n") == 1
    (project / "Makefile").touch()
    assert call(project).stderr.startswith("agent.sh: no python: run 'make venv'")


def test_an_environment_that_lacks_packages_is_refused(project: Path) -> None:
    done = call(project, MLMODELDEV_PYTHON=str(program(project / "python", "exit 1")))
    assert done.returncode == 2
    assert "lacks torch, wandb or pytorch_lightning" in done.stderr


def test_the_profile_names_the_python(project: Path) -> None:
    (project / "slurm" / "profile.sh").write_text(f"MLMODELDEV_PYTHON={sys.executable}\n")
    done = call(project)
    assert done.returncode == 0, done.stderr
    assert "ENTITY/PROJECT/ID" in done.stdout


def test_a_profile_that_fails_ends_the_job(project: Path) -> None:
    (project / "slurm" / "profile.sh").write_text("module load nothing\n")
    done = call(project)
    assert done.returncode == 2
    assert "slurm/profile.sh: ended with an error" in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "export LD_LIBRARY_PATH=/opt/cuda/lib64:$LD_LIBRARY_PATH",
        'PS1="(base) $PS1"',
        "set -euo pipefail",
        "trap 'exit 9' ERR",
    ],
)
def test_a_profile_is_read_as_a_login_shell_reads_it(project: Path, line: str) -> None:
    """Of variables that a job lacks; and what it sets does not end what comes after."""
    profile = project / "slurm" / "profile.sh"
    profile.write_text(f"{line}\nMLMODELDEV_PYTHON={sys.executable}\n")
    done = call(project)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ENTITY/PROJECT/ID" in done.stdout


def test_condas_environment_is_used(project: Path) -> None:
    named = program(project.parent / "miniforge3" / "bin" / "conda", f"echo {sys.executable}")
    done = call(project)
    assert done.returncode == 0, done.stderr
    named.unlink()
    assert call(project).returncode == 2


def test_an_agent_that_is_warned_too_early_each_time_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three starts in a row without a step are enough; one that ended a trial begins anew."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    trial = tmp_path / "trial"
    vain = SimpleNamespace(folder=tmp_path, done=0, failed=0, interrupted=[trial])
    assert [agent._comes_back_in_vain(vain) for _ in range(2)] == [False, False]
    (trial / "checkpoints").mkdir(parents=True)
    (trial / "checkpoints" / "step-00000007.ckpt").touch()
    assert [agent._comes_back_in_vain(vain) for _ in range(4)] == [False, False, False, True]
    assert not agent._comes_back_in_vain(
        SimpleNamespace(folder=tmp_path, done=1, failed=0, interrupted=[])
    )


def test_a_machine_without_its_gpu_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job comes back, and asks for another node then; the last time it fails."""
    calls = tmp_path / "calls"
    shown = "echo JobState=PENDING ExcNodeList=n3"
    program(tmp_path / "bin" / "scontrol", f'echo "$@" >> {calls}', f'[ "$2" != show ] || {shown}')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(agent, "gpu_problem", lambda: "no GPU")
    monkeypatch.setattr(agent, "_find_sweep", lambda *_: None)
    monkeypatch.setattr(agent, "_print_header", lambda sweep: None)
    monkeypatch.setattr(query.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(query.signal, "signal", lambda *_: None)
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    for name, value in {"JOB_ID": "12", "ARRAY_JOB_ID": "12", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert agent.main(["me/it/abc"]) == 75
    assert calls.read_text().splitlines() == [
        "requeue 12_3",
        "-o show job 12_3",
        "update JobId=12_3 ExcNodeList=n3,n7",
    ]
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(agent.REQUEUES))
    assert agent.main(["me/it/abc"]) == 1
    assert len(calls.read_text().splitlines()) == 3
    assert "no GPU" in capsys.readouterr().out


def test_a_trial_of_several_tasks_gets_the_jobs_cpus_on_each(monkeypatch, tmp_path):
    """From Slurm 22.05 on a step does not inherit them."""
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    start = agent.trial_start(ServedSweep({"program": "trainer.py"}, "p/abc"))
    assert start is not None
    line = start(TrialTask("a", tmp_path, ["optimizer.lr=0.1"]), {}).command
    assert "--cpus-per-task=6" in line
    assert "--export=ALL" in line, "agent.sh is submitted with --export=NONE"
