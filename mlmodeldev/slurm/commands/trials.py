"""``SlurmTrain.py status, collect, cancel, clean``: trials, results, jobs and leavings."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.commands import call_hook
from mlmodeldev.slurm.commands.table import print_damaged, print_trials, read_jobs
from mlmodeldev.slurm.commands.watch import add_watch_option, watch_seconds, watch_sweep
from mlmodeldev.slurm.query import run_command
from mlmodeldev.slurm.submission import (
    FOLDER,
    NO_NUMBER,
    forget_taken,
    live_arrays,
    submissions,
    trial_jobs,
)
from mlmodeldev.slurm.sweep_diff import print_changes
from mlmodeldev.slurm.sweep_state import add_sweep_options, read_sweep_state
from mlmodeldev.slurm.trial_entries import find_trial

STATUS_HELP = "the table of trials: state, progress, best value, time left, node"


def add_status_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_watch_option(parser)
    add_sweep_options(parser)


def run_status(args: argparse.Namespace) -> int:
    """Print the table, or go on showing it as it changes."""
    seconds = watch_seconds(args)
    sweep_state = read_sweep_state(args, lint=False)
    print_changes(sweep_state, "status")
    if seconds is not None:
        status = watch_sweep(sweep_state, seconds, args.json)
        if status == 0:
            call_hook(args, "look_after", read_sweep_state(args, lint=False))
        return status
    print_trials(sweep_state, args.json, read_jobs(sweep_state))
    call_hook(args, "look_after", sweep_state)
    return 0


COLLECT_HELP = (
    "the results: best first, mean ± std over replicates, failures, used against asked-for"
    " resources; and a CSV or Parquet file"
)


def add_collect_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_sweep_options(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="a row for each trial: .csv or .parquet (RUNS/SWEEP/results.csv)",
    )


def run_collect(args: argparse.Namespace) -> int:
    """Read all trials, write the file, print the table."""
    from mlmodeldev.slurm.usage_table import print_usage, usage_table
    from mlmodeldev.sweep.results import collect, print_results, write_rows

    sweep_state = read_sweep_state(args, lint=False)
    metric, training = sweep_state.sweep.definition.metric, sweep_state.base.training
    name, goal = training.monitor, {"max": "maximize", "min": "minimize"}[training.mode]
    if metric is not None:
        name, goal = metric.name, metric.goal
    results = collect(sweep_state.entries, name, goal)
    file = Path(args.out) if args.out else sweep_state.folder / "results.csv"
    written, unwritten = False, ""
    if args.out or sweep_state.folder.is_dir():
        try:
            write_rows(results, file)
            written = True
        except UsageError as error:
            if args.out:  # what was asked for by name
                raise
            unwritten = str(error)
    call_hook(args, "look_after", sweep_state)
    title, used = sweep_state.sweep.name, usage_table(sweep_state)
    if args.json:
        resources = {"resources": used.as_dict()} if used else {}
        shown = {"sweep": title, **results.as_dict(), **resources}
        print(json.dumps(shown, indent=1, default=str))
    else:
        print_results(results, title)
        if used:
            print_usage(used)
        if written:
            print(f"rows: {file}")
    print_damaged(sweep_state.entries)
    if unwritten:
        print(f"the rows were not written: {unwritten} (--out FILE)", file=sys.stderr)
    return 0


CANCEL_HELP = "end the sweep's jobs; running trials save first, and none comes back by itself"


def add_cancel_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--trial", action="append", metavar="TRIAL", help="only this trial's job (repeat)"
    )
    add_sweep_options(parser)


def run_cancel(args: argparse.Namespace) -> int:
    """Cancel."""
    sweep_state = read_sweep_state(args, lint=False)
    if args.trial:
        wanted = {find_trial(sweep_state.entries, text).trial.id for text in args.trial}
        jobs_by_trial = trial_jobs(sweep_state.folder)
        queued = [job for trial, job in jobs_by_trial.items() if trial in wanted and job.queued]
        jobs = sorted({job.job for job in queued} - {NO_NUMBER})
    else:
        jobs = live_arrays(sweep_state.folder)
    if jobs:
        done = run_command("scancel", *jobs, seconds=120)
        if done.returncode:
            raise UsageError(f"scancel: {done.stderr.strip()}; status shows what is left")
    if not args.trial:
        for folder in forget_taken(sweep_state.folder):
            print(
                f"{folder}: sbatch had said no number for its jobs, and the queue has none of them;"
                " submit may run their trials again",
                file=sys.stderr,
            )
    print(json.dumps({"cancelled": jobs}) if args.json else f"cancelled: {' '.join(jobs) or '-'}")
    return 0


CLEAN_HELP = "remove copies of the code that no job in the queue uses"


def add_clean_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_sweep_options(parser)


def run_clean(args: argparse.Namespace) -> int:
    """Remove them, for all sweeps of the runs folder; the young ones are about to be used."""
    from mlmodeldev.slurm import snapshot
    from mlmodeldev.slurm.trial_sizes import is_recent

    runs = read_sweep_state(args, lint=False).folder.parent
    used = {folder for folder in (runs / snapshot.FOLDER).glob("*") if is_recent(folder)}
    for sweep in [folder.parent for folder in runs.glob(f"*/{FOLDER}")]:
        live = set(live_arrays(sweep))
        for made in submissions(sweep):
            # what sbatch has not answered yet may be in the queue by now
            if made.intent is not None or live & {job for job, _ in made.arrays}:
                used.add(runs / snapshot.FOLDER / made.snapshot.name)
    names = [folder.name for folder in snapshot.remove_unused(runs, used)]
    print(json.dumps({"removed": names}) if args.json else f"removed: {' '.join(names) or '-'}")
    return 0
