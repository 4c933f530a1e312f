"""Trials' folders as their files alone, written in a moment: of any state, ten days old."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.lease import owner_record, start_ticks
from mlmodeldev.slurm.trial_command import main

LONG_AGO = time.time() - 10 * 86400
STATES = "optimizer-states"  # the option
BEST, LAST, STEP = 300, 200, 1000


def write(path: Path, size: int | str) -> Path:
    """Write a file of so many bytes, or of a text, that is ten days old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(size if isinstance(size, str) else "x" * size)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def trial(folder: Path, state: str = "done", **record: Any) -> Path:
    """Write a trial's folder: two checkpoints of `STEP` bytes, best and last weights."""
    content = {"id": folder.name, "version": 2, "state": state, "epoch": 3, "attempts": 1}
    write(folder / "trial.json", json.dumps({**content, "updated": LONG_AGO, **record}))
    write(folder / "config.yaml", "training:\n  continue_from: null\n")
    write(folder / "metrics.csv", "step,loss\n1,0.5\n")
    write(folder / "checkpoints" / "best.ckpt", BEST)
    for step in (10, 20):
        write(folder / "checkpoints" / f"step-{step:010d}.ckpt", STEP)
    for name, size in (("best", BEST), ("last", LAST)):
        write(folder / name / "training_state.json", "{}")
        write(folder / name / "model.safetensors", size)
    return folder


def offline_run(folder: Path, synced: bool) -> None:
    """Give a trial the files of W&B's client without a network."""
    run = folder / "wandb" / "offline-run-20260101_000000-abc"
    write(run / "run-abc.wandb", 500)
    if synced:
        write(run / "run-abc.wandb.synced", 0)


def job(*, dead: bool = False, remote: bool = False) -> dict[str, Any]:
    """Return the record of a trial that runs: in this test's parent, or on another host."""
    record = owner_record()
    pid = os.getppid()
    record["owner"] |= {"pid": pid, "started": 1 if dead else start_ticks(pid)}
    if remote:
        record["owner"]["host"] = "another-node"
    return {name: record[name] for name in ("owner", "lease")}


def content(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder but locks, with what is in them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.suffix != ".lock"}


def gc(runs: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run the command; return what it prints as JSON."""
    capsys.readouterr()
    assert main(["gc", "--runs-dir", str(runs), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)
