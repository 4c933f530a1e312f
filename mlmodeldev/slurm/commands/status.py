"""``SlurmTrain.py status``: the table of trials."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlmodeldev.slurm import declared

if TYPE_CHECKING:
    from mlmodeldev.slurm.reconcile import Entry
    from mlmodeldev.sweep import Sweep

HELP = "the table of trials"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    declared.add_options(parser)


def run(asked: argparse.Namespace) -> int:
    """Print the table."""
    known = declared.read(asked)
    show(known.sweep, known.entries, asked.json)
    return 0


def show(sweep: Sweep, entries: Sequence[Entry], as_json: bool) -> None:
    """Print the trials as a table, or as one JSON object."""
    if as_json:
        print(json.dumps({"sweep": sweep.name, "trials": [e.as_dict() for e in entries]}, indent=1))
        return
    from mlmodeldev.slurm.table import print_table

    print_table(entries, sweep.name)
