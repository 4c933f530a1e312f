"""Faults that are planted, one at a time: each has its level and its mend."""

from __future__ import annotations

import errno

import pytest

from mlmodeldev.doctor.checks import disk
from tests.doctor.conftest import SCONTROL, Place
from tests.doctor.planted import (
    KEY,
    Fault,
    birds,
    clock_behind,
    few_inodes,
    flock_that,
    having,
    installed,
    key_in_environment,
    lock_of_others,
    locks_on_one_node,
    named_netrc,
    needs_what_is_not_there,
    no_slurm,
    no_tracker,
    nobody_listens,
    on_slurm,
    open_netrc,
    pictures_purged,
    purge_variable,
    purged,
    quota_of,
    room_left,
    runs_below_a_file,
    seen_by_torch,
    sweep_with,
    torch_hangs,
    torch_says,
    umask_of,
    wants_a_gpu,
    with_file,
)

LOW = "/dev/sda1 95 0 100 0 10 0 0 0"
HIGH = "/dev/sda1 10 0 0 0 1000* 900 1000 0"
HEAD = "Filesystem blocks quota limit grace files quota limit grace"
GPU = {"name": "H100", "bytes": 80 * 2**30, "error": ""}
BROKEN = {**GPU, "error": "no kernel image is available"}
PARTITION = "cluster.partition=gpus"

FAULTS = [
    Fault("packages", installed("pytorch_lightning-2.6.3"), "FAIL", "malicious", "install --force"),
    Fault("packages", installed("lightning-2.6.2"), "FAIL", "GHSA", "'lightning>=2.6.4,<2.7'"),
    Fault("packages", installed("torch-2.4.0"), "FAIL", "torch 2.4.0", "pip install 'torch<3"),
    Fault("packages", needs_what_is_not_there, "FAIL", "not installed", "'no-such-thing>=1'"),
    Fault("packages", installed("torchvision-0.2"), "WARN", "torchvision", "uninstall torchvision"),
    Fault("lock", lock_of_others, "WARN", "(0.1)", "pip install -r requirements.lock"),
    Fault("torch", torch_says("echo no libc10.so >&2; exit 1"), "FAIL", "libc10", "import torch"),
    Fault("torch", torch_hangs, "WARN", "slow file system", "time "),
    Fault(
        "torch",
        torch_says(seen_by_torch()),
        "FAIL",
        "build for CPUs",
        "reinstall torch",
    ),
    Fault("torch", torch_says(seen_by_torch(cuda="13.0")), "FAIL", "too old", "nvidia-smi"),
    Fault("torch", torch_says(seen_by_torch(gpus=[BROKEN])), "FAIL", "kernel", "nvidia-smi"),
    Fault(
        "torch",
        wants_a_gpu("training.accelerator=gpu"),
        *("FAIL", "there is no GPU here", "accelerator=auto"),
    ),
    Fault(
        "torch",
        wants_a_gpu("training.precision=16-mixed", "training.accelerator=cpu"),
        *("FAIL", "half precision needs a GPU", "training.precision=32-true"),
    ),
    Fault(
        "runs-folder",
        on_slurm("artefacts.runs_dir=/dev/shm/runs"),
        "FAIL",
        "in the memory",
        "DIR",
    ),
    Fault("runs-folder", having("artefacts.runs_dir=/dev/shm/r"), "WARN", "memory", "=DIR"),
    Fault("runs-folder", runs_below_a_file, "FAIL", "is a file", "artefacts.runs_dir=DIR"),
    Fault("runs-folder", having("artefacts.runs_dir=/proc/r"), "FAIL", "/proc/r:", "=DIR"),
    Fault("disk", room_left(2**60, 0), "WARN", "GiB free", "mlmodeldev trial gc"),
    Fault("disk", room_left(2**60, 2**59), "FAIL", "GiB free", "mlmodeldev trial gc"),
    Fault("disk", few_inodes, "WARN", "inodes", "mlmodeldev trial gc"),
    Fault("quota", quota_of(HEAD, LOW), "WARN", "quota of /dev/sda1", "trial gc"),
    Fault("quota", quota_of(HEAD, HIGH), "FAIL", "1,000 of 1,000 files", "trial gc"),
    Fault("purge", purged, "WARN", "robin.png goes on", "data fetch birds --directory"),
    Fault("purge", purge_variable, "WARN", "three months", "export MLMODELDEV_PURGE_DAYS=90"),
    Fault("locks", flock_that(None), "FAIL", "one lock to two", "artefacts.runs_dir=DIR"),
    Fault("locks", flock_that(errno.ENOLCK), "WARN", "no flock", "mount"),
    Fault("locks", locks_on_one_node, "WARN", "localflock", "mount"),
    Fault("clock", clock_behind(200), "WARN", "200 s behind", "timedatectl"),
    Fault("clock", clock_behind(-4000), "FAIL", "ahead of", "timedatectl"),
    Fault("modes", umask_of("0777"), "FAIL", "own rights", "umask 022"),
    Fault("modes", umask_of("0000"), "WARN", "everybody", "umask 022"),
    Fault("modes", umask_of("0022", 0o777), "WARN", "everybody may write there", "chmod o-w"),
    Fault("modes", umask_of("0077", 0o2770), "WARN", "belongs to a group", "umask 002"),
    Fault("slurm", no_slurm, "FAIL", "no Slurm", "cluster=local"),
    Fault("slurm", on_slurm(squeue="echo down >&2; exit 1"), "FAIL", "down", "scontrol ping"),
    Fault("cluster", on_slurm(PARTITION), "FAIL", "there is none", "cluster.partition=gpu"),
    Fault("cluster", on_slurm("cluster.minutes=600"), "FAIL", "allows 60", "sinfo -o '%P %l'"),
    Fault("settings", on_slurm("cluster.minutes=1"), "FAIL", "no time", "cluster.minutes=3"),
    Fault("cluster", on_slurm("cluster.gpus_per_task=8"), "FAIL", "has 4", "sinfo -o '%P %D %G'"),
    Fault(
        "jobs-python",
        on_slurm("cluster.python=/no/python"),
        "FAIL",
        "/no/python",
        "cluster.python=",
    ),
    Fault(
        "sbatch",
        on_slurm(sbatch="echo 'sbatch: error: Invalid account' >&2; exit 1"),
        *("FAIL", "Invalid account", "SlurmTrain.py plan"),
    ),
    Fault(
        "cluster",
        on_slurm(scontrol=SCONTROL.replace("127.0.0.1", "10.0.0.7")),
        *("WARN", "may not see it", "doctor --job"),
    ),
    Fault("submit", on_slurm("cluster.confirm_gpu_hours=0.1"), "WARN", "GPU-hours", "--yes"),
    Fault("wandb-key", having("logger.wandb.mode=online"), "FAIL", "refused", "wandb login"),
    Fault("wandb-key", open_netrc, "WARN", "others can read", "chmod 600"),
    Fault("wandb-key", named_netrc, "WARN", "others can read your keys", "chmod 600"),
    Fault("wandb-jobs", key_in_environment("online"), "FAIL", "refused", "wandb login"),
    Fault("wandb-jobs", key_in_environment("auto"), "WARN", "log offline", "wandb login"),
    Fault("wandb-server", nobody_listens("online"), "FAIL", "refused", "wandb.mode=offline"),
    Fault("wandb-server", nobody_listens("auto"), "WARN", "log offline", "SlurmTrain.py sync"),
    Fault("trackers", no_tracker, "FAIL", "mlflow", "pip install mlflow"),
    Fault("data", birds("robon\n"), "FAIL", "digest", "data fetch birds --directory"),
    Fault("data", birds("robin\n"), "OK", "birds", ""),
    Fault("data", pictures_purged, "FAIL", "robin.png is gone", "rm -r "),
    Fault("data", birds(None), "WARN", "its files are not", "data fetch birds"),
    Fault("data", on_slurm("data=mnist"), "WARN", "without a network", "data fetch mnist"),
    Fault(
        "data",
        having("data=text_files", "data.files=/nowhere/book.txt", "model=causal_lm"),
        *("FAIL", "/nowhere/book.txt", "ls /nowhere"),
    ),
    Fault("sweep", sweep_with("optimizer.lrr:"), "FAIL", "did you mean", "mlmodeldev.sweep check"),
    Fault("snapshot", with_file("film.mp4", size=101 * 2**20), "FAIL", "film.mp4", ">> .gitignore"),
    Fault("snapshot", with_file("film.mp4", size=60 * 2**20), "WARN", "of 100 MiB", ".gitignore"),
    Fault(
        "snapshot", with_file("my.py", "k = 'AKIA" + "ABCDEFGHIJKLMNOP'"), "FAIL", "key", "secrets"
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.check}-{fault.what}")
def test_a_planted_fault_has_its_line_and_its_mend(place: Place, fault: Fault) -> None:
    fault.plant(place)
    lines = place.lines(fault.check)
    shown = [line for line in lines if fault.what in line.what]
    assert [(line.level, line.check) for line in shown] == [(fault.level, fault.check)], lines
    assert fault.mend in shown[0].mend
    assert "\n" not in shown[0].what + shown[0].mend
    assert KEY not in str(lines)
    assert not list(place.folder.rglob(".doctor-*"))


def test_there_is_no_fault_in_a_place_of_ones_own(place: Place) -> None:
    torch_says(seen_by_torch(), gpus="")(place)
    assert {line.level for line in place.lines()} == {"OK"}


def test_a_cluster_that_takes_the_jobs_is_no_fault(place: Place) -> None:
    on_slurm("cluster.minutes=10", "cluster.python=/bin/sh")(place)
    torch_says(seen_by_torch(cuda="13.0", gpus=[GPU]))(place)
    lines = place.lines()
    assert {line.level for line in lines} == {"OK"}, lines
    by_check = {line.check: line.what for line in lines}
    assert "slurm 23.11.4" in by_check["slurm"]
    assert "partition gpu: 4 GPUs" in by_check["cluster"]
    assert "2 trials in 2 jobs" in by_check["submit"]
    assert by_check["jobs-python"] == "jobs run /bin/sh"
    assert "H100 (80 GiB)" in by_check["torch"]


def test_quotas_of_lustre_are_read_though_a_long_name_takes_a_line() -> None:
    table = """\
/global/scratch/projects/a/rather/long/name
                 950*    900     1000    6d     12       0       0       -
/home  10 0 0 - 3 0 0 -
Some errors happened when getting quota info.
"""
    rows = disk.read_quota(table)
    assert rows[0] == ("/global/scratch/projects/a/rather/long/name", 950, 900, 1000, 12, 0, 0)
    assert rows[1][:4] == ("/home", 10, 0, 0)
    assert len(rows) == 2
