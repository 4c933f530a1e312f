"""``SlurmTrain.py cancel``: take a sweep's jobs out of the queue; nothing comes back by itself."""

from __future__ import annotations

import argparse
import json
import subprocess

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm import sweep_state

HELP = "end the sweep's jobs; running trials save first, and none comes back by itself"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--trial", action="append", metavar="TRIAL", help="only this trial's job (repeat)"
    )
    sweep_state.add_options(parser)


def run(asked: argparse.Namespace) -> int:
    """Cancel."""
    from mlmodeldev.slurm.commands.logs import find
    from mlmodeldev.slurm.tasks import live_arrays, tasks

    known = sweep_state.read(asked, lint=False)
    if asked.trial:
        wanted = {find(known.entries, text).trial.id for text in asked.trial}
        mine = tasks(known.folder)
        jobs = sorted({mine[t].job for t in wanted if t in mine and mine[t].queued})
    else:
        jobs = live_arrays(known.folder)
    if jobs:
        _scancel(jobs)
    print(json.dumps({"cancelled": jobs}) if asked.json else f"cancelled: {' '.join(jobs) or '-'}")
    return 0


def _scancel(jobs: list[str]) -> None:
    done = subprocess.run(
        ["scancel", *jobs], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise UsageError(f"scancel: {done.stderr.strip()}")
