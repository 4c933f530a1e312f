"""The table of a sweep's trials, or their JSON: records, and what the queue says of them."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.commands.plan_output import print_all
from mlmodeldev.slurm.failed_starts import with_ends
from mlmodeldev.slurm.older_code import older_code
from mlmodeldev.slurm.plan import state
from mlmodeldev.slurm.submission import FOLDER, trial_jobs
from mlmodeldev.slurm.trial_entries import ENDED
from mlmodeldev.trial.record_types import DAMAGED

if TYPE_CHECKING:
    from rich.text import Text

    from mlmodeldev.slurm.submission import TrialJob
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.slurm.trial_entries import TrialEntry

ROWS = 100
"""Rows shown at most."""
NOTES = 5
"""Jobs told of at most."""
_NAME = 16
"""Columns that a trial's name has at least, where a narrow terminal makes it break."""
_ENDLESS = 10_000
_QUIET = {"done", "pruned", "missing", "queued"}
COLOURS = {
    "done": "green",
    "failed": "red",
    "lost": "red",
    "interrupted": "yellow",
    "queued": "blue",
    "running": "cyan",
}
"""Of the states, in a terminal."""

Jobs = Mapping[str, "TrialJob"]
"""The trials' newest jobs, by identity."""


def read_jobs(sweep_state: SweepState) -> Jobs:
    """Return the trials' jobs; nothing, and a word, where Slurm does not answer."""
    if not (sweep_state.folder / FOLDER).is_dir():
        return {}
    try:
        return read_ended_jobs(sweep_state)
    except UsageError as error:
        print(f"{error}; what follows is from the trials' folders alone", file=sys.stderr)
        return {}


def read_ended_jobs(sweep_state: SweepState) -> Jobs:
    """Return the trials' jobs, with what is to be said of those that ended badly.

    Raises:
        UsageError: Slurm does not answer.
    """
    folder = sweep_state.folder
    return with_ends(sweep_state.entries, trial_jobs(folder), folder)


def print_notes(jobs: Jobs) -> None:
    """Say how jobs ended that are worth a word: a few of them, on standard error."""
    notes = [(trial, job) for trial, job in jobs.items() if job.note]
    for trial, job in notes[:NOTES]:
        given_up = f"; given up after {job.failed_starts}, see retry" if job.is_given_up else ""
        print(f"{trial}: {job.note}{given_up}", file=sys.stderr)
    if len(notes) > NOTES:
        print(f"and {len(notes) - NOTES} more; status --json has all", file=sys.stderr)


def print_damaged(entries: Sequence[TrialEntry]) -> None:
    """Say which records are not as they were written: a few of them, on standard error."""
    damaged = [entry for entry in entries if DAMAGED in entry.record]
    for entry in damaged[:NOTES]:
        print(
            f"{entry.folder / 'trial.json'}: damaged: {entry.record[DAMAGED][0]}", file=sys.stderr
        )
    if len(damaged) > NOTES:
        print(f"and {len(damaged) - NOTES} more damaged records", file=sys.stderr)


def print_trials(
    sweep_state: SweepState,
    as_json: bool,
    jobs: Jobs | None = None,
) -> None:
    """Print the trials as a table, or as one JSON object.

    Args:
        jobs: the trials' jobs; adds what the queue says.
    """
    entries, title, jobs = sweep_state.entries, sweep_state.sweep.name, jobs or {}
    if as_json:
        # one by one: of very many, all rows together fill the memory
        rows = (json.dumps(_json_row(entry, jobs.get(entry.trial.id))) for entry in entries)
        first = next(rows, "")
        head = f'{{\n "sweep": {json.dumps(title)},\n "trials": [{first}'
        print_all(itertools.chain([head], (f",\n{row}" for row in rows), ["]\n}\n"]))
    else:
        _print_table(entries, title, jobs)
    print_damaged(entries)


def ranked(entries: Sequence[TrialEntry]) -> list[TrialEntry]:
    """Return the entries, the best value first, those without one last."""
    sign = -1 if _of_metric(entries, "mode", "max") == "max" else 1

    def place(entry: TrialEntry) -> tuple[bool, float]:
        return entry.value is None, sign * (entry.value or 0)

    return sorted(entries, key=place)


def _json_row(entry: TrialEntry, job: TrialJob | None) -> dict[str, Any]:
    row = {**entry.as_dict(), "state": state(entry, job)}
    if "code" in entry.record and entry.state in ENDED:
        row["older_code"] = older_code(entry)
    if job is None:
        return row
    queued = job.queued
    return {
        **row,
        "job": job.job,
        "queue": queued and queued.state,
        "reason": queued and queued.reason,
        "time_left": queued and queued.time_left,
        "node": queued and queued.node,
        **({"note": job.note} if job.note else {}),
    }


def _print_table(entries: Sequence[TrialEntry], title: str, jobs: Jobs) -> None:
    from rich.console import Console
    from rich.table import Table

    states = {entry.trial.id: state(entry, jobs.get(entry.trial.id)) for entry in entries}
    older = {e.trial.id for e in entries if states[e.trial.id] in ENDED and older_code(e)}
    table = Table(title=title or None, title_justify="left")
    metric = _of_metric(entries, "name", "metric")
    names = ["trial", "name", "state", "epoch", metric, "test", "attempts"]
    for name in [*names, *(["job", "left", "node"] if jobs else [])]:
        # an identity in two pieces can't be copied; only the trial's long name may break
        table.add_column(name, overflow="fold", no_wrap=name != "name")
    for entry in _shown(entries, states):
        cells = _cells(entry, states[entry.trial.id], entry.trial.id in older)
        table.add_row(*cells, *(_queue_cells(jobs.get(entry.trial.id)) if jobs else []))
    # names are values of the user's, whose brackets and colons are no markup
    console = Console(soft_wrap=True, markup=False, emoji=False)
    seen, console.width = console.width, _ENDLESS
    needed = console.measure(table).maximum
    longest = max((len(entry.trial.name) for entry in entries), default=0)
    table.columns[1].max_width = max(_NAME, seen - (needed - longest))
    console.width = max(seen, console.measure(table).maximum)
    console.print(table)
    counts = Counter(states[entry.trial.id] for entry in entries).most_common()
    summary = ", ".join(f"{count} {name}" for name, count in counts)
    more = "" if len(entries) <= ROWS else f"; {ROWS} rows at most are shown, --json has all"
    summary += f" ({len(older)} with older code; retry --changed runs them anew)" if older else ""
    print(f"{len(entries)} trials: {summary or 'none'}{more}")
    print_notes(jobs)


def _shown(entries: Sequence[TrialEntry], states: Mapping[str, str]) -> list[TrialEntry]:
    """Return the rows: all, or of many the best and those that something is going on with."""
    order = ranked(entries)
    if len(order) <= ROWS:
        return order
    best = order[: ROWS // 2]
    others = [entry for entry in order[ROWS // 2 :] if states[entry.trial.id] not in _QUIET]
    return best + others[: ROWS - len(best)]


def _cells(entry: TrialEntry, state: str, older: bool) -> list[str | Text]:
    from rich.text import Text

    record = entry.record
    return [
        entry.trial.id,
        entry.trial.name,
        Text(state, COLOURS.get(state, "white")).append(", older code" if older else "", "default"),
        _epoch(record),
        "" if entry.value is None else f"{entry.value:.4f}",
        _test_value(record, (entry.metric or {}).get("name", "")),
        str(record.get("attempts", "")),
    ]


def _queue_cells(job: TrialJob | None) -> list[str]:
    if job is None:
        return ["", "", ""]
    queued = job.queued
    if queued is None:
        return [job.job, "", ""]
    why = "" if queued.reason in ("None", "") else f"({queued.reason})"
    place = f"{queued.node} (leaving)" if job.is_leaving else queued.node
    return [job.job, queued.time_left if queued.node else "", place or why]


def _epoch(record: Mapping[str, Any]) -> str:
    if "epoch" not in record:
        return ""
    return f"{record['epoch']}/{record['epochs']}" if "epochs" in record else str(record["epoch"])


def _of_metric(entries: Sequence[TrialEntry], key: str, default: str) -> str:
    """Return what the first trial that has a metric says of it."""
    values = ((entry.metric or {}).get(key) for entry in entries)
    return next((value for value in values if value), default)


def _test_value(record: Mapping[str, Any], name: str) -> str:
    """Return the test's value of the metric, by the name that it has there; else the test's first.

    ``val/accuracy`` is ``test/accuracy`` then, and ``val_loss`` ``test_loss``.
    """
    values: Mapping[str, Any] = record.get("test") or {}
    name = re.sub(r"^val(id(ation)?)?(?=[/_])", "test", name)
    value = values.get(name, next(iter(values.values()), None))
    return "" if value is None else f"{value:.4f}"
