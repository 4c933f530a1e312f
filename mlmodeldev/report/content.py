"""What the page shows of a sweep, as plain values: one mapping that becomes its JSON.

Example::

    content = gather(sweep_state, jobs)
    content["head"]["best"]["mean"]          # 0.9313, over the point's replicates

Everything is read from the trials' folders and the sweep file; keys are masked as they are in logs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlmodeldev import __version__
from mlmodeldev.report import curves
from mlmodeldev.report.head import head
from mlmodeldev.report.importance import Point, importances
from mlmodeldev.report.matrices import read_matrices
from mlmodeldev.report.origin import Changes, Failures, origin
from mlmodeldev.slurm.plan import state
from mlmodeldev.slurm.sweep_watch import undrawn_trials
from mlmodeldev.slurm.trial_entries import ENDED
from mlmodeldev.slurm.usage_table import usage_table
from mlmodeldev.sweep.results import collect
from mlmodeldev.trial.record_types import DAMAGED

if TYPE_CHECKING:
    from mlmodeldev.slurm.submission import TrialJob
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.slurm.trial_entries import TrialEntry
    from mlmodeldev.sweep.results import Results

FORM = 1
"""Of the page's JSON."""
MOST_TRIALS = 20_000
"""So many trials are in the page; of more, the best and those that did not end well."""


_QUIET = frozenset({*ENDED, "missing", "queued"})


@dataclass(frozen=True)
class Shown:
    """A trial of the page: its folder, its state and its row of results."""

    entry: TrialEntry
    state: str
    row: Mapping[str, Any]
    value: float | None
    failure: Mapping[str, Any] | None = field(default=None)


def gather(
    sweep_state: SweepState,
    jobs: Mapping[str, TrialJob],
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what the page shows.

    Args:
        jobs: the trials' newest jobs by identity; empty where there is no Slurm.
        before: what the page showed last; its importance is kept while no other trial has ended,
            for it takes seconds.
    """
    metric, goal = metric_of(sweep_state)
    results = collect(sweep_state.entries, metric, goal)
    entries = {entry.trial.id: entry for entry in sweep_state.entries}
    every, failures = [], Failures(sweep_state)
    for row in results.rows:  # best first
        entry, job = entries[row["id"]], jobs.get(row["id"])
        now = state(entry, job)
        wrong = failures.of(entry, job) if now in ("failed", "lost") else None
        every.append(Shown(entry, now, row, row[results.column], wrong))
    shown = _some_of(every)
    folders = [each.entry.folder for each in shown if each.entry.record]
    matrices, without = read_matrices(folders)
    undrawn = undrawn_trials(sweep_state, len(every), [each.value for each in every])
    used = usage_table(sweep_state)
    changes, ended = Changes(), _finished(every, sweep_state.sweep.definition.replicates)
    return {
        "form": FORM,
        "library": __version__,
        "made": time.time(),
        "sweep": sweep_state.sweep.name or sweep_state.folder.name,
        "metric": metric,
        "goal": goal,
        "parameters": _parameters(shown),
        "replicates": list(sweep_state.sweep.definition.replicates),
        "head": head(results, every, sweep_state.base.cluster, undrawn or 0),
        "trials": [_trial(each, changes) for each in shown],
        "trials_left_out": len(every) - len(shown),
        "points": _points(results, shown),
        **_curves(shown, metric),
        "cka": matrices,
        "cka_left_out": without,
        **_importance(ended, before or {}),
        "changes": changes.texts,
        "resources": used.content() if used else None,
        "origin": origin(sweep_state, [each.entry for each in shown]),
    }


def _some_of(every: Sequence[Shown]) -> Sequence[Shown]:
    """Return the trials of the page in their order, best first: all, or of very many some.

    Those that run or did not end well are half of them at most; never begun ones come last.
    """
    if len(every) <= MOST_TRIALS:
        return every
    order = sorted(range(len(every)), key=lambda i: every[i].state in _QUIET)
    kept = set(order[: MOST_TRIALS // 2])
    kept |= set(islice((i for i in range(len(every)) if i not in kept), MOST_TRIALS - len(kept)))
    return [every[i] for i in sorted(kept)]


def _points(results: Results, shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """Return the points of which a trial is in the page."""
    ids = {each.entry.trial.id for each in shown}
    return [group.as_dict() for group in results.groups if not ids.isdisjoint(group.trials)]


def metric_of(sweep_state: SweepState) -> tuple[str, str]:
    """Return what trials are ordered by, and ``maximize`` or ``minimize``: the sweep's, if any."""
    metric, training = sweep_state.sweep.definition.metric, sweep_state.base.training
    if metric is not None:
        return metric.name, metric.goal
    return training.monitor, {"max": "maximize", "min": "minimize"}[training.mode]


def _parameters(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """Return the settings in which the trials differ, by name and by the label in their names."""
    values: dict[str, set[str]] = {}
    labels: dict[str, str] = {}
    for each in shown:
        labels |= each.entry.trial.naming.labels
        for name, value in each.entry.trial.overrides.items():
            values.setdefault(name, set()).add(repr(value))
    count = len(shown)
    return [
        {"name": name, "label": labels.get(name, name)}
        for name, different in values.items()
        if len(different) > 1 or sum(name in each.entry.trial.overrides for each in shown) < count
    ]


def _trial(each: Shown, changes: Changes) -> dict[str, Any]:
    """Return one trial; what is empty is left out, which halves the page of a long sweep."""
    entry, record = each.entry, each.entry.record
    values = {
        "id": entry.trial.id,
        "name": entry.trial.name,
        "group": entry.trial.group,
        "state": each.state,
        "value": each.value,
        "settings": entry.trial.overrides,
        "epoch": record.get("epoch"),
        "epochs": record.get("epochs"),
        "seconds": record.get("seconds"),
        "attempts": record.get("attempts"),
        "test": record.get("test"),
        "commit": record.get("sha"),
        "code": record.get("code"),
        "changes": changes.number_of(entry.folder) if record else None,
        "failure": each.failure,
        "damaged": record.get(DAMAGED),
    }
    return {name: value for name, value in values.items() if value not in (None, "", {})}


def _curves(shown: Sequence[Shown], metric: str) -> dict[str, Any]:
    """Return the names of all curves, and the curves of each trial that has any.

    Of very many trials the best, and those that did not end well, show every metric.
    """
    begun = [each for each in shown if each.entry.record]
    first = sorted(begun, key=lambda each: each.state in ENDED)  # stable: best first among equals
    whole = {each.entry.trial.id for each in first[: curves.WHOLE_TRIALS // 2]}
    whole |= {each.entry.trial.id for each in begun[: curves.WHOLE_TRIALS]}
    every = curves.column_names((e.entry.folder for e in _some(begun)), metric)
    names = every[: curves.MOST_METRICS]
    points = curves.points_each(len(begun), len(names))
    read = {
        each.entry.trial.id: curves.as_plain(
            curves.read_curves(
                each.entry.folder, names if each.entry.trial.id in whole else [metric], points
            ),
            names,
        )
        for each in begun
    }
    kept = {name: one for name, one in read.items() if one}
    return {
        "metrics": names,
        "metrics_left_out": len(every) - len(names),
        "curves": kept,
        "curve_points": points,
        "curves_left_out": len(begun) - len(whole),
    }


def _some(begun: Sequence[Shown]) -> Iterable[Shown]:
    """Return trials that have all columns there are, or nearly: a few of the best, a few others."""
    return [*begun[:10], *begun[10 :: max(1, len(begun) // 10)]]


def _importance(ended: Sequence[Point], before: Mapping[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(repr(ended).encode()).hexdigest()[:16]
    if before.get("importance_of") == digest:
        return {"importance": before["importance"], "importance_of": digest}
    return {"importance": importances(ended), "importance_of": digest}


def _finished(shown: Sequence[Shown], replicates: Sequence[str]) -> list[Point]:
    """Return parameters and value of trials that ended; replicates are repeats, no parameters."""
    return [
        ({k: v for k, v in e.entry.trial.overrides.items() if k not in replicates}, e.value)
        for e in shown
        if e.state in ENDED and e.value is not None
    ]
