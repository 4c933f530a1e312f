"""A sweep, looked at again and again: only records that have changed are read.

Example::

    watch = SweepWatch(sweep_state)
    look = watch.look()
    look.rows[0].state, look.seconds_left, look.is_over
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm.plan import state
from mlmodeldev.slurm.queue_watch import QueueWatch
from mlmodeldev.slurm.rates import Rates, last_rates
from mlmodeldev.slurm.time_left import (
    epochs_an_hour,
    sweep_seconds_left,
    trial_seconds_left,
    usual_seconds,
)
from mlmodeldev.slurm.trial_entries import ENDED, TrialEntry, begun_trial
from mlmodeldev.slurm.waiting import queue_reason, waits_for
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from mlmodeldev.slurm.submission import TrialJob
    from mlmodeldev.slurm.sweep_state import SweepState

_Version = tuple[int, int, int]
"""A file's number, time and length: another one where it was written anew."""


@dataclass(frozen=True)
class Row:
    """A trial at this moment.

    Attributes:
        state: as `slurm.plan.state` tells it.
        value: best of the sweep's metric so far.
        samples, steps: a second, of a running trial.
        epochs_an_hour, seconds_left: of a running trial.
        node: where its job runs.
        waits: for what; empty: for nothing.
        cause: why it failed, or what is to be said of its job.
    """

    id: str
    name: str
    state: str
    epoch: int | None = None
    epochs: int | None = None
    value: float | None = None
    attempts: int | None = None
    samples: float | None = None
    steps: float | None = None
    epochs_an_hour: float | None = None
    seconds_left: float | None = None
    node: str = ""
    waits: str = ""
    cause: str = ""

    @property
    def facts(self) -> tuple[object, ...]:
        """What a change of is worth a line; rates and the time left change all the time."""
        return self.state, self.epoch, self.value, self.attempts, self.node, self.waits, self.cause

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows; what is empty is left out."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True)
class Look:
    """A sweep at one moment.

    Attributes:
        rows: its trials, in the sweep's order; of a search those begun.
        metric, goal: what they are ordered by; ``maximize`` or ``minimize``.
        seconds_left: to the end, if as many trials run at once as now; None: not to be foretold.
        undrawn: trials that a search still draws; None: no search, or one without an end.
        workers: of a search, counted by what they do.
        complaint: why Slurm does not answer.
    """

    sweep: str
    metric: str
    goal: str
    rows: list[Row]
    seconds_left: float | None = None
    undrawn: int | None = None
    workers: Counter[str] = field(default_factory=Counter)
    complaint: str = ""

    @property
    def states(self) -> Counter[str]:
        """How many trials are in each state."""
        return Counter(row.state for row in self.rows)

    @property
    def waits(self) -> Counter[str]:
        """How many trials wait for each thing."""
        return Counter(row.waits for row in self.rows if row.waits)

    @property
    def is_over(self) -> bool:
        """Whether every trial has ended, well or not, and none is still to be drawn."""
        return not self.undrawn and set(self.states) <= {*ENDED, "failed"}


def undrawn_trials(
    sweep_state: SweepState, begun: int, values: Iterable[float | None]
) -> int | None:
    """Return how many trials a search still draws; None: no search, or one without an end.

    Args:
        begun: how many it has drawn.
        values: their best values, any of which may reach the metric's target.
    """
    if not sweep_state.is_search:
        return None
    metric = sweep_state.sweep.definition.metric
    caps = [n for n in (sweep_state.count, sweep_state.sweep.definition.run_cap) if n]
    if metric is not None and metric.target is not None:
        sign = 1 if metric.goal == "maximize" else -1
        if any(v is not None and sign * v >= sign * metric.target for v in values):
            return 0
    return max(0, min(caps) - begun) if caps else None


class SweepWatch:
    """Reads a sweep's folder: at first all of it, then what has changed."""

    def __init__(self, sweep_state: SweepState) -> None:
        self._sweep_state, self._base = sweep_state, sweep_state.folder
        self._entries = {entry.trial.id: entry for entry in sweep_state.entries}
        self._values: dict[str, float | None] = {}
        self._versions: dict[str, _Version | None] = {}
        self._rates: dict[str, tuple[_Version | None, Rates]] = {}
        self._queue = QueueWatch(sweep_state)
        metric, training = sweep_state.sweep.definition.metric, sweep_state.base.training
        self._metric = metric.name if metric else training.monitor
        by_mode = {"max": "maximize", "min": "minimize"}
        self._goal = metric.goal if metric else by_mode[training.mode]

    def look(self) -> Look:
        """Return the sweep as it stands."""
        self._read_changed()
        jobs = self._queue.read(self._entries.values())
        pairs = [(entry, jobs.get(name)) for name, entry in self._entries.items()]
        seen = [(entry, job, state(entry, job)) for entry, job in pairs]
        timed = [(now, entry.record) for entry, _, now in seen]
        usual, undrawn = usual_seconds(timed), self._undrawn()
        begun = any(now == "running" and job is None for _, job, now in seen)
        rows = [self._row(*each, usual, waits_for(each[2], each[1], begun)) for each in seen]
        workers = self._queue.workers.values()
        return Look(
            self._sweep_state.sweep.name or self._base.name,
            self._metric,
            self._goal,
            rows,
            sweep_seconds_left(timed, undrawn or 0),
            undrawn,
            Counter(_worker(each) for each in workers),
            self._queue.complaint,
        )

    def _read_changed(self) -> None:
        """Read the records that were written since the last look, and note those that are gone."""
        names = set(self._names())
        for name in names | {name for name, version in self._versions.items() if version}:
            folder = self._base / name
            version = _version(f"{self._base}/{name}/trial.json")
            if self._versions.get(name) == version:
                continue
            self._versions[name] = version
            entry = self._entries.get(name)
            now = entry.again() if entry else self._drawn(folder)
            if now is not None:
                self._entries[name], self._values[name] = now, now.value

    def _names(self) -> Iterator[str]:
        """Yield the names of the folders that may hold a trial of the sweep."""
        is_search = self._sweep_state.is_search
        try:
            with os.scandir(self._base) as items:
                for item in items:
                    if item.name in self._entries or (is_search and item.name[0] != "."):
                        yield item.name
        except OSError:
            return

    def _drawn(self, folder: Path) -> TrialEntry | None:
        """Return a trial that a search has begun since."""
        return begun_trial(self._sweep_state.sweep, folder, read_record(folder))

    def _undrawn(self) -> int | None:
        return undrawn_trials(self._sweep_state, len(self._entries), self._values.values())

    def _row(
        self, entry: TrialEntry, job: TrialJob | None, now: str, usual: float | None, waits: str
    ) -> Row:
        record, name = entry.record, entry.trial.id
        queued = job.queued if job else None
        row: dict[str, Any] = {
            "epoch": record.get("epoch"),
            "epochs": record.get("epochs"),
            "value": self._values.get(name),
            "attempts": record.get("attempts"),
            "node": queued.node if queued and now == "running" else "",
            "waits": waits,
        }
        if now == "running":
            rates, timed = self._rates_of(entry), (now, record)
            row |= asdict(rates)
            row["epochs_an_hour"] = epochs_an_hour(timed)
            row["seconds_left"] = trial_seconds_left(timed, usual)
        elif now == "failed":
            row["cause"] = str(record.get("reason") or (job.note if job else "") or "")
        elif job is not None and job.note and now not in ENDED:
            row["cause"] = job.note
        return Row(name, entry.trial.name, now, **row)

    def _rates_of(self, entry: TrialEntry) -> Rates:
        file, name = entry.folder / "metrics.csv", entry.trial.id
        version = _version(str(file))
        if name not in self._rates or self._rates[name][0] != version:
            self._rates[name] = version, last_rates(file)
        return self._rates[name][1]


def _version(path: str) -> _Version | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - thousands of them at each look
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _worker(job: TrialJob) -> str:
    queued = job.queued
    if queued is None or queued.state == "RUNNING":
        return "running"
    return f"waiting for {queue_reason(queued)}"
