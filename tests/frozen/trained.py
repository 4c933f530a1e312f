"""What a trial has left in its folder, as numbers and names that can be compared.

Example::

    rows(folder)                     # metrics.csv without what tells of time
    weights(folder / "last")         # {"text.pooler.dense.bias": "91be...", ...}
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import subprocess
import time
from pathlib import Path
from typing import Any

SMALL = (
    "logger=csv training.accelerator=cpu training.max_epochs=2 training.log_every_n_steps=1"
    " training.checkpoint_every_n_steps=1 processing.batch_size=64 model.depth=1 model.heads=2"
    " artefacts.runs_dir=@HERE@/runs artefacts.data_dir=@HERE@/data"
)
"""Settings of a trial of a second or two: a checkpoint and a row at each step."""
INTERRUPTED = 75
TOLERANCE = 1e-3
NEAR_ZERO = 1e-4
"""Numbers that are a sum of many that cancel, such as CKA of two strangers, are noise below."""
FEW_EXAMPLES = 0.012
"""Accuracies may differ by two examples where another machine adds in another order."""


def machine() -> dict[str, str]:
    """Return what decides on the last bit of a number: processor and torch."""
    import torch

    text = Path("/proc/cpuinfo").read_text()
    names = ("model name", "cpu family", "model", "stepping")
    result = [re.search(rf"(?m)^{name}\s*: (.+)", text) for name in names]
    return {
        "cpu": ", ".join(each[1] for each in result if each),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
    }


def rows(folder: Path) -> list[dict[str, float]]:
    """Return the rows of metrics.csv, without columns that tell of time."""
    with (folder / "metrics.csv").open(newline="") as file:
        result = [_numbers(row) for row in csv.DictReader(file)]
    return [row for row in result if set(row) - {"epoch", "step"}]


def _numbers(row: dict[str, str]) -> dict[str, float]:
    return {k: float(v) for k, v in row.items() if v and not k.startswith("time/")}


def log(folder: Path) -> list[dict[str, float]]:
    """Return the entries of log.json, without what tells of time."""
    entries = json.loads((folder / "log.json").read_text())
    return [{k: v for k, v in e.items() if not k.startswith("time/")} for e in entries]


def record(folder: Path) -> dict[str, Any]:
    """Return a trial's record; empty before it has one."""
    file = folder / "trial.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def weights(export: Path) -> dict[str, str]:
    """Return a digest of each tensor of an exported model."""
    from safetensors.numpy import load_file

    tensors = load_file(export / "model.safetensors")
    return {
        name: hashlib.sha256(tensors[name].tobytes()).hexdigest()[:16] for name in sorted(tensors)
    }


def alignment(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the files of CKA hold."""
    import numpy

    result = {}
    for file in sorted((folder / "cka").rglob("*.npz")):
        with numpy.load(file, allow_pickle=False) as kept:
            result[str(file.relative_to(folder))] = {k: kept[k].tolist() for k in sorted(kept)}
    return result


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Return where two values differ by more than another machine would explain."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(f"{place}/{key}", old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{place}[{i}]", *pair) for i, pair in enumerate(zip(old, new, strict=True))]
    else:
        return [] if _alike(old, new, place) else [f"{place}: {old!r} now {new!r}"]
    return [text for where, left, right in pairs for text in differences(left, right, where)]


def _alike(old: Any, new: Any, place: str) -> bool:
    if not (isinstance(old, float) and isinstance(new, int | float)):
        return bool(old == new)
    near = FEW_EXAMPLES if "accuracy" in place else NEAR_ZERO
    return math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=near)


def end_after_a_checkpoint(process: subprocess.Popen[str], folder: Path, signal: int) -> None:
    """Send a process a signal as soon as a trial has a checkpoint of its own."""
    deadline = time.monotonic() + 240
    while not list((folder / "checkpoints").glob("step-*.ckpt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.005)
    process.send_signal(signal)
    process.wait(120)
