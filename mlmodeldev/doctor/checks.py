"""What may be wrong with this machine, this cluster and these settings; a fix for each.

Example::

    for finding in run_checks(settings):
        print(finding.ok, finding.what, finding.fix)
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.limits import read_limits
from mlmodeldev.slurm.preflight import check_cluster, file_system, local_disk_warning
from mlmodeldev.slurm.query import slurm_is_here
from mlmodeldev.slurm.script import python_words

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

_LOW_DISK = 5 * 2**30
_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        ok: whether it is as it should be.
        what: what was found.
        fix: what to do about it; empty where nothing is to be done.
    """

    ok: bool
    what: str
    fix: str = ""


def run_checks(settings: Settings) -> Iterator[Finding]:
    """Yield what each check finds; none of them changes anything."""
    for check in (_python, _runs_dir, _disk, _slurm, _jobs_python, _tracker):
        yield check(settings)


def _python(settings: Settings) -> Finding:
    version = sys.version.split()[0]
    try:
        import torch
    except ImportError as error:
        return Finding(False, f"Python {version}: {error}", "make venv, and use .venv/bin/python")
    return Finding(True, f"Python {version}, torch {torch.__version__} ({sys.executable})")


def _runs_dir(settings: Settings) -> Finding:
    runs = _folder(settings.artefacts.runs_dir)
    if not os.access(_nearest(runs), os.W_OK):
        return Finding(False, f"{runs}: can't be written", "artefacts.runs_dir=... elsewhere")
    kind = file_system(runs)
    if kind in ("tmpfs", "ramfs"):
        return Finding(False, f"{runs}: in memory ({kind})", "artefacts.runs_dir=... on a disk")
    return Finding(True, f"{runs}: can be written ({kind})")


def _disk(settings: Settings) -> Finding:
    for name in (settings.artefacts.runs_dir, settings.artefacts.data_dir):
        free = shutil.disk_usage(_nearest(_folder(name))).free
        if free < _LOW_DISK:
            what = f"{_folder(name)}: {free / 2**30:.1f} GiB free"
            return Finding(False, what, "delete what is not needed; `quota -s` shows your share")
    return Finding(True, f"disk: {free / 2**30:.0f} GiB free")


def _slurm(settings: Settings) -> Finding:
    cluster, runs_dir = settings.cluster, _folder(settings.artefacts.runs_dir)
    if not slurm_is_here():
        if cluster.launcher == "local":
            return Finding(True, "no Slurm here: trials run on this machine")
        return Finding(False, f"cluster={cluster.name}: no Slurm here", "log in to the cluster")
    if cluster.launcher == "local":
        return Finding(True, "Slurm is here, but cluster=local runs trials on this machine")
    try:
        limits = read_limits(cluster)
        check_cluster(cluster, limits, runs_dir)
        if problem := local_disk_warning(runs_dir, limits.nodes):
            return Finding(False, problem, "artefacts.runs_dir=... there")
    except UsageError as error:
        return Finding(False, str(error), f"cluster.KEY=VALUE, or conf/cluster/{cluster.name}.yaml")
    names = ",".join(partition.name for partition in limits.partitions_of(cluster.partition))
    gpus = sum(node.gpus for node in limits.nodes_of(cluster.partition))
    return Finding(True, f"partition {names or '?'}: {gpus} GPUs in all")


def _jobs_python(settings: Settings) -> Finding:
    python = python_words(settings.cluster)
    if shutil.which(python[0]) is None:
        return Finding(False, f"{python[0]}: no such interpreter", "cluster.python=PATH")
    return Finding(True, f"jobs run {' '.join(python)}")


def _tracker(settings: Settings) -> Finding:
    wandb = settings.logger.wandb
    if wandb is None or wandb.mode == "offline":
        return Finding(True, "no W&B server is wanted")
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    port = host.port or (443 if host.scheme == "https" else 80)
    try:
        socket.create_connection((host.hostname or "", port), _SECONDS).close()
    except OSError:
        what = f"W&B: {host.hostname} can't be reached"
        return Finding(wandb.mode == "auto", what, "runs log offline; upload them later by sync")
    return Finding(True, f"W&B: {host.hostname} answers")


def _folder(name: str) -> Path:
    return Path(name).expanduser().absolute()


def _nearest(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
