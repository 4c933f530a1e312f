"""torch and the GPUs: which torch, which driver, and whether the one can use the other.

torch is imported by a process of its own: that takes seconds, and may never end.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlmodeldev import machine
from mlmodeldev.doctor.line import Line, Scope, fail, ok, warn
from mlmodeldev.secrets import masked

TORCH_SECONDS = 90.0
"""How long torch may take to be imported and to look for GPUs; some file systems are slow."""
DRIVER = Path("/proc/driver/nvidia/version")
_LOOK = """
import json, sys
import torch
seen = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": []}
if torch.cuda.is_available():
    for index in range(torch.cuda.device_count()):
        gpu = {"name": torch.cuda.get_device_name(index), "error": ""}
        try:
            gpu["bytes"] = torch.cuda.get_device_properties(index).total_memory
            torch.ones(8, device=f"cuda:{index}").sum().item()
        except Exception as error:
            gpu["error"] = str(error).strip().splitlines()[0]
        seen["gpus"].append(gpu)
print("\\n" + json.dumps(seen))
"""


def torch(scope: Scope) -> Iterator[Line]:
    """Say which torch it is, and which GPUs it can use."""
    from mlmodeldev.slurm.query import COMMAND_MISSING, run_command

    done = run_command(sys.executable, "-c", _LOOK, seconds=TORCH_SECONDS)
    if done.returncode == COMMAND_MISSING:
        what = f"torch: its import takes more than {TORCH_SECONDS:.0f} s: a slow file system"
        yield warn(what, f"time {sys.executable} -c 'import torch'")
        return
    try:
        seen = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no reason is given"])[-1]
        yield fail(
            f"torch can't be imported: {masked(last, 200)}", f"{sys.executable} -c 'import torch'"
        )
        return
    yield from _gpus(scope, seen, done.stderr)


def _gpus(scope: Scope, seen: dict[str, Any], errors: str) -> Iterator[Line]:
    name, training = f"torch {seen['torch']}", scope.settings.training
    if training.precision.startswith("16") and training.accelerator == "cpu":
        what = f"training.precision={training.precision}: half precision needs a GPU"
        yield fail(what, "python slurm/SlurmTrain.py training.precision=32-true")
    broken = [gpu for gpu in seen["gpus"] if gpu["error"]]
    if broken:
        what = f"{name} can't use {broken[0]['name']}: {masked(broken[0]['error'], 160)}"
        yield fail(what, _install())
    elif seen["gpus"]:
        sizes = [f"{gpu['name']} ({gpu['bytes'] / 2**30:.0f} GiB)" for gpu in seen["gpus"]]
        yield ok(f"{name} with CUDA {seen['cuda']}, {_driver()}; {', '.join(sizes)}")
    else:
        yield from _without_gpu(scope, name, seen["cuda"], errors)


def _without_gpu(scope: Scope, name: str, cuda: str | None, errors: str) -> Iterator[Line]:
    here, wanted = machine.visible_gpus(), _wanted(scope)
    needed = fail if wanted or not scope.submits else warn
    if here and cuda is None:
        what = f"{name} is a build for CPUs, and here {_counted(len(here))}"
        yield needed(what, f"{sys.executable} -m pip install --force-reinstall torch")
    elif here:
        why = " ".join(errors.split())[-160:] or "no reason is given"
        what = f"{name} with CUDA {cuda} can't use the GPUs here, {_driver()}: {why}"
        yield needed(what, _install())
    elif wanted:
        yield fail(f"{name}: {wanted}, and there is no GPU here", _without(scope))
    elif scope.submits and not scope.in_job:
        yield ok(f"{name}; no GPU on this machine, 'doctor --job' looks at a compute node's")
    else:
        yield ok(f"{name}; no GPU here, trials run on the CPU")


def _wanted(scope: Scope) -> str:
    """Return what a trial would be refused for without a GPU; empty: nothing."""
    training, cluster = scope.settings.training, scope.settings.cluster
    if scope.in_job and cluster.gpus_per_task:
        return f"the job has asked for {cluster.gpus_per_task} of them"
    if scope.submits or training.accelerator == "cpu":
        return ""
    if training.accelerator == "gpu":
        return "training.accelerator=gpu"
    halves = ("16-mixed", "16-true")
    return f"training.precision={training.precision}" if training.precision in halves else ""


def _without(scope: Scope) -> str:
    if scope.in_job:
        return "scontrol show job; sinfo -o '%P %G'"
    return "python slurm/SlurmTrain.py training.accelerator=auto training.precision=32-true"


def _counted(gpus: int) -> str:
    return "is a GPU" if gpus == 1 else f"are {gpus} GPUs"


def _driver() -> str:
    """Return the driver's version as the kernel tells it."""
    try:
        numbers = re.search(r"Module\D*?\s(\d+\.\d+\S*)", DRIVER.read_text())
    except OSError:
        numbers = None
    return f"driver {numbers[1]}" if numbers else "no NVIDIA driver"


def _install() -> str:
    """Return the command that gets a torch for this driver, whose CUDA nvidia-smi shows."""
    return "nvidia-smi  # then a build of torch for the CUDA that it shows (pytorch.org)"
