"""``SlurmTrain.py report``: write a sweep's page, once or again and again.

Example::

    python slurm/SlurmTrain.py report                    # runs/digits/report.html
    python slurm/SlurmTrain.py report --watch 60         # renewed every minute until all has ended
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.sweep_state import add_sweep_options, read_sweep_state

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState

FILE = "report.html"
FEWEST_SECONDS, MOST_SECONDS = 5.0, 86_400.0
EXIT_CTRL_C = 130
REPORT_HELP = "one HTML page on the sweep, which opens without a network"


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--out", metavar="FILE", help="where to (RUNS/SWEEP/report.html)")
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        type=float,
        nargs="?",
        const=60.0,
        help="write it again so often (60) until all trials have ended, or Ctrl-C",
    )
    add_sweep_options(parser)


def run_report(args: argparse.Namespace) -> int:
    """Write the page and print its path."""
    if args.watch is not None and not FEWEST_SECONDS <= args.watch <= MOST_SECONDS:
        allowed = f"{FEWEST_SECONDS:g} to {MOST_SECONDS:g} seconds"
        raise UsageError(f"--watch {args.watch:g}: {allowed} (a day at most)")
    try:
        while True:
            sweep_state = read_sweep_state(args, lint=False)
            file = write_report(sweep_state, Path(args.out) if args.out else None)
            print(json.dumps({"report": str(file)}) if args.json else file, flush=True)
            if args.watch is None or not is_open(sweep_state):
                return 0
            time.sleep(args.watch)
    except KeyboardInterrupt:
        return EXIT_CTRL_C


def write_report(sweep_state: SweepState, file: Path | None = None) -> Path:
    """Write a sweep's page, whole or not at all; return where it lies.

    Raises:
        UsageError: nothing of the sweep was begun, so that there is no folder to write it to.
    """
    from mlmodeldev.atomic import write_text
    from mlmodeldev.report.content import gather
    from mlmodeldev.report.page import read_content, render
    from mlmodeldev.slurm.commands.table import read_jobs

    if file is None and not sweep_state.folder.is_dir():
        name = sweep_state.file
        raise UsageError(
            f"{name}: no trial of it was begun, {sweep_state.folder} is not there; see submit"
        )
    target = file or sweep_state.folder / FILE
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "not a file"
        raise UsageError(f"{target}: {kind}; name a file")
    content = gather(sweep_state, read_jobs(sweep_state), read_content(target))
    write_text(target, render(content))
    return target


def look_after(sweep_state: SweepState) -> None:
    """Write the page again where there is one; what goes wrong with it spoils no table."""
    if not (sweep_state.folder / FILE).is_file():
        return
    try:
        write_report(sweep_state)
    except Exception as error:  # whatever it is: the table was asked for, the page was not
        reason = error if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        print(f"warning: the report was not renewed: {reason}", file=sys.stderr)


def is_open(sweep_state: SweepState) -> bool:
    """Return whether a trial may still go on, or a search draw another."""
    from mlmodeldev.slurm.sweep_watch import undrawn_trials

    entries = sweep_state.entries
    if any(e.state not in ("done", "pruned", "failed") for e in entries):
        return True
    return bool(undrawn_trials(sweep_state, len(entries), (e.value for e in entries)))
