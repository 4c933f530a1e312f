"""``SlurmTrain.py status``: the table of trials, with what Slurm's queue says of them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm import sweep_diff, sweep_state
from mlmodeldev.slurm.plan import state
from mlmodeldev.slurm.sweep_state import TrialEntry

if TYPE_CHECKING:
    from mlmodeldev.slurm.submission import Task
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.sweep import Sweep


STATUS_HELP = "the table of trials: state, progress, best value, time left, node"


def add_status_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)


def run_status(asked: argparse.Namespace) -> int:
    """Print the table."""
    known = sweep_state.read(asked, lint=False)
    sweep_diff.print_changes(known, "status")
    show(known.sweep, known.entries, asked.json, in_queue(known))
    return 0


def in_queue(known: SweepState) -> dict[str, Task]:
    """Return the trials' jobs; nothing, and a word, where Slurm does not answer."""
    from mlmodeldev.slurm.submission import FOLDER, tasks

    if not (known.folder / FOLDER).is_dir():
        return {}
    try:
        return tasks(known.folder)
    except UsageError as error:
        print(f"{error}; what follows is from the trials' folders alone", file=sys.stderr)
        return {}


def show(
    sweep: Sweep,
    entries: Sequence[TrialEntry],
    as_json: bool,
    tasks: dict[str, Task] | None = None,
) -> None:
    """Print the trials as a table, or as one JSON object."""
    tasks = tasks or {}
    if as_json:
        rows = [_row(entry, tasks.get(entry.trial.id)) for entry in entries]
        print(json.dumps({"sweep": sweep.name, "trials": rows}, indent=1))
        return

    print_table(entries, sweep.name, tasks)


def _row(entry: TrialEntry, task: Task | None) -> dict[str, Any]:
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


CANCEL_HELP = "end the sweep's jobs; running trials save first, and none comes back by itself"


def add_cancel_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--trial", action="append", metavar="TRIAL", help="only this trial's job (repeat)"
    )
    sweep_state.add_options(parser)


def run_cancel(asked: argparse.Namespace) -> int:
    """Cancel."""
    from mlmodeldev.slurm.commands.logs import find
    from mlmodeldev.slurm.submission import live_arrays, tasks

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


CLEAN_HELP = "remove copies of the code that no job in the queue uses"


def add_clean_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)


def run_clean(asked: argparse.Namespace) -> int:
    """Remove them, for all sweeps of the runs folder."""
    from mlmodeldev.slurm.snapshot import remove_unused
    from mlmodeldev.slurm.submission import FOLDER, live_arrays, submissions

    known = sweep_state.read(asked, lint=False)
    runs = known.folder.parent
    sweeps = [folder.parent for folder in runs.glob(f"*/{FOLDER}")]
    used = set()
    for sweep in sweeps:
        live = set(live_arrays(sweep))
        used |= {s.snapshot for s in submissions(sweep) if live & {job for job, _ in s.arrays}}
    removed = remove_unused(runs, used)
    names = [folder.name for folder in removed]
    print(json.dumps({"removed": names}) if asked.json else f"removed: {' '.join(names) or '-'}")
    return 0


COLLECT_HELP = (
    "the results: best first, mean ± std over replicates, failures; and a CSV or Parquet file"
)


def add_collect_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="a row for each trial: .csv or .parquet (RUNS/SWEEP/results.csv)",
    )


def run_collect(asked: argparse.Namespace) -> int:
    """Read all trials, write the file, print the table."""
    from mlmodeldev.sweep.results import collect, print_results, write_rows

    known = sweep_state.read(asked, lint=False)
    metric = known.sweep.definition.metric
    training = known.base.training
    name, goal = training.monitor, {"max": "maximize", "min": "minimize"}[training.mode]
    if metric is not None:
        name, goal = metric.name, metric.goal
    results = collect(known.entries, name, goal)
    file = Path(asked.out) if asked.out else known.folder / "results.csv"
    if asked.out or known.folder.is_dir():
        write_rows(results, file)
    if asked.json:
        print(json.dumps({"sweep": known.sweep.name, **results.as_dict()}, indent=1, default=str))
        return 0
    print_results(results, known.sweep.name)
    if file.is_file():
        print(f"rows: {file}")
    return 0


ROWS = 100
"""Rows shown at most."""
_QUIET = {"done", "pruned", "missing", "queued"}
_COLOURS = {
    "done": "green",
    "failed": "red",
    "lost": "red",
    "interrupted": "yellow",
    "queued": "blue",
    "running": "cyan",
}


def ranked(entries: Sequence[TrialEntry]) -> list[TrialEntry]:
    """Return the entries, the best value first, those without one last."""
    sign = -1 if _mode(entries) == "max" else 1

    def place(entry: TrialEntry) -> tuple[bool, float]:
        return entry.value is None, sign * (entry.value or 0)

    return sorted(entries, key=place)


def print_table(
    entries: Sequence[TrialEntry], title: str = "", tasks: Mapping[str, Task] | None = None
) -> None:
    """Print a table of the trials to standard output.

    Args:
        tasks: the trials' jobs by identity; adds columns of what the queue says.
    """
    from rich.console import Console
    from rich.table import Table

    tasks = tasks or {}
    table = Table(title=title or None, title_justify="left")
    names = ["trial", "name", "state", "epoch", _metric(entries), "test", "attempts"]
    for name in [*names, *(["job", "left", "node"] if tasks else [])]:
        table.add_column(name, overflow="fold")
    for entry in _shown(entries, tasks):
        task = tasks.get(entry.trial.id)
        table.add_row(*_cells(entry, task), *(_queue_cells(task) if tasks else []))
    Console(soft_wrap=True).print(table)
    print(_summary(entries, tasks))


def _shown(entries: Sequence[TrialEntry], tasks: Mapping[str, Task]) -> list[TrialEntry]:
    """Return the rows: all, or of many the best and those that something is going on with."""
    order = ranked(entries)
    if len(order) <= ROWS:
        return order
    best = order[: ROWS // 2]
    others = [e for e in order[ROWS // 2 :] if _now(e, tasks) not in _QUIET]
    return best + others[: ROWS - len(best)]


def _summary(entries: Sequence[TrialEntry], tasks: Mapping[str, Task]) -> str:
    counts = Counter(_now(entry, tasks) for entry in entries)
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    more = "" if len(entries) <= ROWS else f"; {ROWS} rows at most are shown, --json has all"
    return f"{len(entries)} trials: {told or 'none'}{more}"


def _now(entry: TrialEntry, tasks: Mapping[str, Task]) -> str:
    return state(entry, tasks.get(entry.trial.id))


def _cells(entry: TrialEntry, task: Task | None) -> list[str]:
    record = entry.record
    now = state(entry, task)
    return [
        entry.trial.id,
        entry.trial.name,
        f"[{_COLOURS.get(now, 'white')}]{now}[/]",
        _epoch(record),
        "" if entry.value is None else f"{entry.value:.4f}",
        _test(record),
        str(record.get("attempts", "")),
    ]


def _queue_cells(task: Task | None) -> list[str]:
    if task is None:
        return ["", "", ""]
    queued = task.queued
    if queued is None:
        return [task.job, "", ""]
    waits = "" if queued.reason in ("None", "") else f"({queued.reason})"
    return [task.job, queued.time_left if queued.node else "", queued.node or waits]


def _epoch(record: Mapping[str, Any]) -> str:
    if "epoch" not in record:
        return ""
    return f"{record['epoch']}/{record['epochs']}" if "epochs" in record else str(record["epoch"])


def _metric(entries: Sequence[TrialEntry]) -> str:
    names = [(e.record.get("metric") or {}).get("name") for e in entries]
    return next((name for name in names if name), "metric")


def _mode(entries: Sequence[TrialEntry]) -> str:
    modes = [(e.record.get("metric") or {}).get("mode") for e in entries]
    return next((mode for mode in modes if mode), "max")


def _test(record: Mapping[str, Any]) -> str:
    name = (record.get("metric") or {}).get("name", "").replace("val/", "test/")
    value = (record.get("test") or {}).get(name)
    return "" if value is None else f"{value:.4f}"
