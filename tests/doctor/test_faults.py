"""Faults that are planted, one at a time: each has its level and its mend."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mlmodeldev.doctor.checks import disk, locks, machine, modes, tracking
from mlmodeldev.fetch.manifest import prepare
from mlmodeldev.slurm import preflight
from mlmodeldev.trial import software
from tests.doctor.conftest import SCONTROL, Place

KEY = "not-a-key-of-any-server-" + "x" * 16


@dataclass(frozen=True)
class Fault:
    """What is planted, in which check it is seen, at which level, and a part of line and mend."""

    check: str
    plant: Callable[[Place], object]
    level: str
    what: str
    mend: str


# --- how they are planted


def _installed(name: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        (place.folder / f"{name}.dist-info").mkdir()
        place.patch.syspath_prepend(str(place.folder))

    return plant


def _settings(*overrides: str) -> Callable[[Place], None]:
    return lambda place: place.overrides.extend(overrides)


def _needs_what_is_not_there(place: Place) -> None:
    (place.folder / "pyproject.toml").write_text('[project]\ndependencies = ["no-such-thing>=1"]')
    place.patch.setattr(software, "LIBRARY", place.folder / "mlmodeldev")


def _lock_of_others(place: Place) -> None:
    (place.folder / "requirements.lock").write_text("numpy==0.1\n")
    place.replaced["root"] = place.folder


def _torch(text: str, gpus: str = "0") -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.patch.setattr("sys.executable", str(place.program("python", text)))
        place.patch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        place.patch.setattr(machine, "TORCH_SECONDS", 5.0)

    return plant


def _torch_hangs(place: Place) -> None:
    _torch("exec sleep 60")(place)
    place.patch.setattr(machine, "TORCH_SECONDS", 0.2)


def _runs_below_a_file(place: Place) -> None:
    (place.folder / "file").touch()
    place.overrides.append(f"artefacts.runs_dir={place.folder}/file/runs")


def _disk(little: int, nothing: int) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.patch.setattr(disk, "LITTLE", little)
        place.patch.setattr(disk, "NOTHING", nothing)

    return plant


def _few_inodes(place: Place) -> None:
    place.patch.setattr(disk, "FEW_FILES", 2**63)


def _quota(*rows: str) -> Callable[[Place], None]:
    return lambda place: place.stubs(quota="cat <<'END'\n" + "\n".join(rows) + "\nEND\nexit 1")


def _purge(place: Place, name: str = "scratch") -> None:
    file = place.folder / name / "data" / "birds" / "robin.png"
    file.parent.mkdir(parents=True)
    file.touch()
    os.utime(file, (time.time() - 85 * 86400,) * 2)
    place.patch.setenv("SCRATCH", str(place.folder / name))
    place.patch.setenv("MLMODELDEV_PURGE_DAYS", "90")
    place.overrides.append(f"artefacts.data_dir={place.folder}/{name}/data")


def _purge_variable(place: Place) -> None:
    _purge(place)
    place.patch.setenv("MLMODELDEV_PURGE_DAYS", "three months")


def _flock(error: int | None) -> Callable[[Place], None]:
    def flock(number: int, how: int) -> None:
        if error:
            raise OSError(error, "refused")

    return lambda place: place.patch.setattr(fcntl, "flock", flock)


def _locks_on_one_node(place: Place) -> None:
    mounts = place.folder / "mounts"
    mounts.write_text("server:/ / lustre rw,localflock,relatime 0 0\n")
    place.patch.setattr(preflight, "MOUNTS", mounts)


def _clock(seconds: float) -> Callable[[Place], None]:
    real = time.time

    class Late:
        time = staticmethod(lambda: real() - seconds)

    return lambda place: place.patch.setattr(locks, "time", Late)


def _umask(mask: str, mode: int = 0o755) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        (place.folder / "runs").mkdir()
        (place.folder / "runs").chmod(mode)
        status = place.folder / "status"
        status.write_text(f"Name:\tpython\nUmask:\t{mask}\n")
        place.patch.setattr(modes, "STATUS", status)

    return plant


def _no_slurm(place: Place) -> None:
    place.patch.setenv("PATH", str(place.folder))
    place.overrides.append("cluster=generic")


def _slurm(*overrides: str, **commands: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.stubs(**commands)
        place.overrides += ["cluster=generic", *overrides]

    return plant


def _open_netrc(place: Place) -> None:
    file = place.home / ".netrc"
    file.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    file.chmod(0o644)


def _named_netrc(place: Place) -> None:
    _open_netrc(place)
    place.patch.setenv("NETRC", str(place.home / ".netrc"))


def _key_in_environment(mode: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.patch.setenv("WANDB_API_KEY", KEY)
        place.stubs()
        place.overrides += ["cluster=generic", f"logger.wandb.mode={mode}"]

    return plant


def _nobody_listens(mode: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.patch.setenv("WANDB_API_KEY", KEY)
        place.patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        place.overrides.append(f"logger.wandb.mode={mode}")

    return plant


def _no_tracker(place: Place) -> None:
    place.patch.setattr(tracking, "find_spec", lambda name: None)
    place.overrides.append("logger=mlflow")


def _wants_a_gpu(*overrides: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        _torch(_gpu_without_torch(), gpus="")(place)
        place.overrides += overrides

    return plant


MANIFEST = """\
title: Birds
files:
  - urls: ["https://example.org/birds.csv"]
    bytes: 6
    sha256: "{digest}"
layout: [birds.csv]
"""


def _birds(content: str | None) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        folder, own = place.folder / "data" / "birds", place.folder / "manifests"
        folder.mkdir(parents=True)
        own.mkdir()
        right = hashlib.sha256(b"robin\n").hexdigest()
        text = MANIFEST.format(digest=right)
        (own / "birds.yaml").write_text(text)
        if content is not None:
            (folder / "birds.csv").write_text(content)
        place.patch.setenv("MLMODELDEV_MANIFESTS", str(own))

    return plant


def _pictures_purged(place: Place) -> None:
    """The archive was unpacked, and scratch has lost one of its pictures since."""
    archive = place.folder / "birds.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("robin.png", "red")
    own = place.folder / "manifests"
    own.mkdir()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (own / "birds.yaml").write_text(
        f'files: [{{urls: ["{archive.as_uri()}"], sha256: "{digest}", unpack: pictures}}]\n'
        "layout: [pictures/robin.png]\n"
    )
    place.patch.setenv("MLMODELDEV_MANIFESTS", str(own))
    folder = prepare("birds", place.folder / "data", keep_archives=False)
    (folder / "pictures" / "robin.png").unlink()


def _sweep(text: str) -> Callable[[Place], None]:
    return lambda place: place.sweep.write_text(
        place.sweep.read_text().replace("optimizer.lr:", text)
    )


def _code(name: str, text: str = "", size: int = 0) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        root = place.folder / "project"
        root.mkdir()
        with (root / name).open("w") as file:
            file.write(text)
            file.truncate(max(size, len(text)))
        place.replaced["root"] = root
        place.stubs()
        place.overrides.append("cluster=generic")

    return plant


def _gpu_without_torch(**seen: object) -> str:
    shown = {"torch": "2.13.0", "cuda": None, "gpus": [], **seen}
    return f"echo 'driver is too old' >&2; echo '{json.dumps(shown)}'"


LOW = "/dev/sda1 95 0 100 0 10 0 0 0"
HIGH = "/dev/sda1 10 0 0 0 1000* 900 1000 0"
HEAD = "Filesystem blocks quota limit grace files quota limit grace"
GPU = {"name": "H100", "bytes": 80 * 2**30, "error": ""}
BROKEN_GPU = {**GPU, "error": "no kernel image is available"}
PARTITION = "cluster.partition=gpus"

FAULTS = [
    Fault(
        "packages", _installed("pytorch_lightning-2.6.3"), "FAIL", "malicious", "install --force"
    ),
    Fault("packages", _installed("lightning-2.6.2"), "FAIL", "GHSA", "'lightning>=2.6.4,<2.7'"),
    Fault("packages", _installed("torch-2.4.0"), "FAIL", "torch 2.4.0", "pip install 'torch<3"),
    Fault("packages", _needs_what_is_not_there, "FAIL", "not installed", "'no-such-thing>=1'"),
    Fault(
        "packages", _installed("torchvision-0.2"), "WARN", "torchvision", "uninstall torchvision"
    ),
    Fault("lock", _lock_of_others, "WARN", "(0.1)", "pip install -r requirements.lock"),
    Fault("torch", _torch("echo no libc10.so >&2; exit 1"), "FAIL", "libc10", "import torch"),
    Fault("torch", _torch_hangs, "WARN", "slow file system", "time "),
    Fault(
        "torch", _torch(_gpu_without_torch()), "FAIL", "build for CPUs", "--force-reinstall torch"
    ),
    Fault("torch", _torch(_gpu_without_torch(cuda="13.0")), "FAIL", "too old", "nvidia-smi"),
    Fault("torch", _torch(_gpu_without_torch(gpus=[BROKEN_GPU])), "FAIL", "kernel", "nvidia-smi"),
    Fault(
        "torch",
        _wants_a_gpu("training.accelerator=gpu"),
        *("FAIL", "there is no GPU here", "accelerator=auto"),
    ),
    Fault(
        "torch",
        _wants_a_gpu("training.precision=16-mixed", "training.accelerator=cpu"),
        *("FAIL", "half precision needs a GPU", "training.precision=32-true"),
    ),
    Fault(
        "runs-folder", _slurm("artefacts.runs_dir=/dev/shm/runs"), "FAIL", "in the memory", "DIR"
    ),
    Fault("runs-folder", _settings("artefacts.runs_dir=/dev/shm/r"), "WARN", "memory", "runs_dir="),
    Fault("runs-folder", _runs_below_a_file, "FAIL", "is a file", "artefacts.runs_dir=DIR"),
    Fault("runs-folder", _settings("artefacts.runs_dir=/proc/r"), "FAIL", "/proc/r:", "=DIR"),
    Fault("disk", _disk(2**60, 0), "WARN", "GiB free", "mlmodeldev trial gc"),
    Fault("disk", _disk(2**60, 2**59), "FAIL", "GiB free", "mlmodeldev trial gc"),
    Fault("disk", _few_inodes, "WARN", "inodes", "mlmodeldev trial gc"),
    Fault("quota", _quota(HEAD, LOW), "WARN", "quota of /dev/sda1", "trial gc"),
    Fault("quota", _quota(HEAD, HIGH), "FAIL", "1,000 of 1,000 files", "trial gc"),
    Fault("purge", _purge, "WARN", "robin.png goes on", "data fetch birds --directory"),
    Fault("purge", _purge_variable, "WARN", "three months", "export MLMODELDEV_PURGE_DAYS=90"),
    Fault("locks", _flock(None), "FAIL", "one lock to two", "artefacts.runs_dir=DIR"),
    Fault("locks", _flock(errno.ENOLCK), "WARN", "no flock", "mount"),
    Fault("locks", _locks_on_one_node, "WARN", "localflock", "mount"),
    Fault("clock", _clock(200), "WARN", "200 s behind", "timedatectl"),
    Fault("clock", _clock(-4000), "FAIL", "ahead of", "timedatectl"),
    Fault("modes", _umask("0777"), "FAIL", "own rights", "umask 022"),
    Fault("modes", _umask("0000"), "WARN", "everybody", "umask 022"),
    Fault("modes", _umask("0022", 0o777), "WARN", "everybody may write there", "chmod o-w"),
    Fault("modes", _umask("0077", 0o2770), "WARN", "belongs to a group", "umask 002"),
    Fault("slurm", _no_slurm, "FAIL", "no Slurm", "cluster=local"),
    Fault("slurm", _slurm(squeue="echo down >&2; exit 1"), "FAIL", "down", "scontrol ping"),
    Fault("cluster", _slurm(PARTITION), "FAIL", "there is none", "cluster.partition=gpu"),
    Fault("cluster", _slurm("cluster.minutes=600"), "FAIL", "allows 60", "sinfo -o '%P %l'"),
    Fault("settings", _slurm("cluster.minutes=1"), "FAIL", "no time", "cluster.minutes=3"),
    Fault("cluster", _slurm("cluster.gpus_per_task=8"), "FAIL", "has 4", "sinfo -o '%P %D %G'"),
    Fault(
        "jobs-python", _slurm("cluster.python=/no/python"), "FAIL", "/no/python", "cluster.python="
    ),
    Fault(
        "sbatch",
        _slurm(sbatch="echo 'sbatch: error: Invalid account' >&2; exit 1"),
        *("FAIL", "Invalid account", "SlurmTrain.py plan"),
    ),
    Fault(
        "cluster",
        _slurm(scontrol=SCONTROL.replace("127.0.0.1", "10.0.0.7")),
        *("WARN", "may not see it", "doctor --job"),
    ),
    Fault("submit", _slurm("cluster.confirm_gpu_hours=0.1"), "WARN", "GPU-hours", "--yes"),
    Fault("wandb-key", _settings("logger.wandb.mode=online"), "FAIL", "refused", "wandb login"),
    Fault("wandb-key", _open_netrc, "WARN", "others can read", "chmod 600"),
    Fault("wandb-key", _named_netrc, "WARN", "others can read your keys", "chmod 600"),
    Fault("wandb-jobs", _key_in_environment("online"), "FAIL", "refused", "wandb login"),
    Fault("wandb-jobs", _key_in_environment("auto"), "WARN", "log offline", "wandb login"),
    Fault("wandb-server", _nobody_listens("online"), "FAIL", "refused", "wandb.mode=offline"),
    Fault("wandb-server", _nobody_listens("auto"), "WARN", "log offline", "SlurmTrain.py sync"),
    Fault("trackers", _no_tracker, "FAIL", "mlflow", "pip install mlflow"),
    Fault("data", _birds("robon\n"), "FAIL", "digest", "data fetch birds --directory"),
    Fault("data", _birds("robin\n"), "OK", "birds", ""),
    Fault("data", _pictures_purged, "FAIL", "robin.png is gone", "rm -r "),
    Fault("data", _birds(None), "WARN", "its files are not", "data fetch birds"),
    Fault("data", _slurm("data=mnist"), "WARN", "without a network", "data fetch mnist"),
    Fault(
        "data",
        _settings("data=text_files", "data.files=/nowhere/book.txt", "model=causal_lm"),
        *("FAIL", "/nowhere/book.txt", "ls /nowhere"),
    ),
    Fault("sweep", _sweep("optimizer.lrr:"), "FAIL", "did you mean", "mlmodeldev.sweep check"),
    Fault("snapshot", _code("film.mp4", size=101 * 2**20), "FAIL", "film.mp4", ">> .gitignore"),
    Fault("snapshot", _code("film.mp4", size=60 * 2**20), "WARN", "of 100 MiB", ".gitignore"),
    Fault("snapshot", _code("my.py", "k = 'AKIA" + "ABCDEFGHIJKLMNOP'"), "FAIL", "key", "secrets"),
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
    _torch(_gpu_without_torch(), gpus="")(place)
    assert {line.level for line in place.lines()} == {"OK"}


def test_a_cluster_that_takes_the_jobs_is_no_fault(place: Place) -> None:
    _slurm("cluster.minutes=10", "cluster.python=/bin/sh")(place)
    _torch(_gpu_without_torch(cuda="13.0", gpus=[GPU]))(place)
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
