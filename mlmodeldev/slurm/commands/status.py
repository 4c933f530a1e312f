"""``SlurmTrain.py status``: the table of trials, with what Slurm's queue says of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm import sweep_diff, sweep_state

if TYPE_CHECKING:
    from mlmodeldev.slurm.reconcile import Entry
    from mlmodeldev.slurm.sweep_state import Declared
    from mlmodeldev.slurm.tasks import Task
    from mlmodeldev.sweep import Sweep

HELP = "the table of trials: state, progress, best value, time left, node"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)


def run(asked: argparse.Namespace) -> int:
    """Print the table."""
    known = sweep_state.read(asked, lint=False)
    sweep_diff.tell(known, "status")
    show(known.sweep, known.entries, asked.json, in_queue(known))
    return 0


def in_queue(known: Declared) -> dict[str, Task]:
    """Return the trials' jobs; nothing, and a word, where Slurm does not answer."""
    from mlmodeldev.slurm.submission import FOLDER
    from mlmodeldev.slurm.tasks import tasks

    if not (known.folder / FOLDER).is_dir():
        return {}
    try:
        return tasks(known.folder)
    except UsageError as error:
        print(f"{error}; what follows is from the trials' folders alone", file=sys.stderr)
        return {}


def show(
    sweep: Sweep,
    entries: Sequence[Entry],
    as_json: bool,
    tasks: dict[str, Task] | None = None,
) -> None:
    """Print the trials as a table, or as one JSON object."""
    tasks = tasks or {}
    if as_json:
        rows = [_row(entry, tasks.get(entry.trial.id)) for entry in entries]
        print(json.dumps({"sweep": sweep.name, "trials": rows}, indent=1))
        return
    from mlmodeldev.slurm.table import print_table

    print_table(entries, sweep.name, tasks)


def _row(entry: Entry, task: Task | None) -> dict[str, Any]:
    from mlmodeldev.slurm.plan import state

    row = {**entry.as_dict(), "state": state(entry, task)}
    if task is None:
        return row
    queued = task.queued
    return {
        **row,
        "job": task.job,
        "queue": queued and queued.state,
        "reason": queued and queued.reason,
        "time_left": queued and queued.time_left,
        "node": queued and queued.node,
    }
