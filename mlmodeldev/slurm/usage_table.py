"""What a sweep's trials have used, against what their jobs asked for; and what to ask for next.

Example::

    table = usage_table(sweep_state)              # None: fewer than two trials, or nothing measured
    table.settings                                # ["cluster.minutes=40", "cluster.mem_gb=6"]
    print_usage(table)

The trials' records tell (`mlmodeldev.trial.usage`); of memory that they do not, such as another
program's, Slurm's accounting does.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm.job_ends import JobEnd, read_job_memory
from mlmodeldev.slurm.next_request import MARGINS, Most, Request, next_request
from mlmodeldev.slurm.plan import trials_at_once
from mlmodeldev.slurm.query import slurm_is_here, task_name
from mlmodeldev.slurm.trial_entries import ENDED

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm.sweep_state import SweepState

FEWEST_TRIALS = 2
"""One trial says nothing of the others."""

COLUMNS = ("of a trial", "median", "maximum", "asked for", "next")


@dataclass(frozen=True)
class UsageTable:
    """Used against asked for.

    Attributes:
        trials: finished trials on which it rests.
        rows: texts, a cell for each of `COLUMNS`.
        notes: sentences beneath it.
        settings: what to ask for next, where that differs.
        figures: the numbers: minutes, cores, memory_gib, gpu_memory_gib, gpu_use (0 to 1), each
            with n, median, maximum and what was asked for.
    """

    trials: int
    rows: list[list[str]]
    notes: list[str]
    settings: list[str]
    figures: dict[str, dict[str, Any]]

    def content(self) -> dict[str, Any]:
        """Return what the report shows."""
        return {"columns": list(COLUMNS), "rows": self.rows, "notes": self.notes}

    def as_dict(self) -> dict[str, Any]:
        """Return one JSON object."""
        return {"trials": self.trials, **self.figures, "settings": self.settings}


@dataclass
class _Used:
    """One trial's figures; None: not measured."""

    record: Mapping[str, Any]
    figures: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        usage = self.record.get("usage") or {}
        seconds = self.record.get("seconds")
        spent, lasted = usage.get("cpu_seconds"), usage.get("seconds")
        self.figures = {
            "minutes": seconds / 60 if seconds else None,
            "cores": spent / lasted if lasted and spent is not None else None,
            "memory_gib": usage.get("memory_gib") or None,
            "gpu_memory_gib": usage.get("gpu_memory_gib"),
            "gpu_use": usage.get("gpu_use"),
        }

    @property
    def job(self) -> str:
        """Its job; empty: none."""
        return task_name(self.record.get("slurm") or {})


_NAMES = {
    "minutes": ("time", "{:.3g} min"),
    "cores": ("cores", "{:.2f}"),
    "memory_gib": ("memory", "{:.3g} GiB"),
    "gpu_memory_gib": ("GPU memory", "{:.3g} GiB"),
    "gpu_use": ("GPU use", "{:.0%}"),
}


def usage_table(sweep_state: SweepState) -> UsageTable | None:
    """Return a sweep's table; None: fewer than two trials are finished, or nothing was measured.

    Slurm's accounting is asked only where the memory of a job's only trial is not recorded.
    """
    used = [_Used(entry.record) for entry in sweep_state.entries if entry.state in ENDED]
    cluster = sweep_state.base.cluster
    ends = _fill_from_accounting(used, cluster)
    measured = {
        name: [float(value) for each in used if (value := each.figures[name]) is not None]
        for name in _NAMES
    }
    if len(used) < FEWEST_TRIALS or not any(v for k, v in measured.items() if k != "minutes"):
        return None
    requested = _requested(cluster, used, ends)
    most = Most(
        **{name: max(values, default=None) for name, values in measured.items()},
        gpu_gib=min(_entries(used, "gpu_gib"), default=None),
    )
    request = next_request(cluster, most, sweep_state.is_search)
    figures = {
        name: {
            "n": len(values),
            "median": round(statistics.median(values), 4),
            "maximum": round(max(values), 4),
            "requested": requested[name],
        }
        for name, values in measured.items()
        if values
    }
    settings = [each for each in request.settings(cluster) if each not in _by_itself(requested)]
    rows = [_row(name, one, request) for name, one in figures.items()]
    notes = _notes(len(used), settings, cluster, figures, bool(ends))
    return UsageTable(len(used), rows, notes, settings, figures)


def _fill_from_accounting(used: Sequence[_Used], cluster: Cluster) -> dict[str, JobEnd]:
    """Give trials without a figure of memory that of their job, if it ran no other beside."""
    lacking = [each for each in used if each.figures["memory_gib"] is None and each.job]
    if not lacking or trials_at_once(cluster) > 1 or not slurm_is_here():
        return {}
    ends = read_job_memory([each.job for each in lacking])
    for each in lacking:
        end = ends.get(each.job)
        each.figures["memory_gib"] = (end.used or None) if end else None
    return ends


def _requested(
    cluster: Cluster, used: Sequence[_Used], ends: Mapping[str, JobEnd]
) -> dict[str, float | None]:
    """Return what a job had of each; None: nothing was asked for, or it is not told."""
    in_jobs = cluster.launcher == "slurm"
    cores: float | None = None
    memory: float | None = None
    if cluster.cpus_per_task != "auto":
        cores = cluster.cpus_per_task * cluster.tasks_per_node
    elif in_jobs:
        cores = max(_entries(used, "cores"), default=None)
    if isinstance(cluster.mem_gb, int | float):
        memory = cluster.mem_gb
    elif in_jobs:
        by_slurm = [end.requested for end in ends.values() if end.requested]
        memory = max([*_entries(used, "memory_given_gib"), *by_slurm], default=None)
    return {
        "minutes": cluster.minutes if in_jobs else None,
        "cores": cores,
        "memory_gib": memory,
        "gpu_memory_gib": min(_entries(used, "gpu_gib"), default=None),
        "gpu_use": None,
    }


def _entries(used: Sequence[_Used], name: str) -> list[float]:
    """Return an entry of ``usage`` of each trial that has it."""
    usages = [each.record.get("usage") or {} for each in used]
    return [float(usage[name]) for usage in usages if usage.get(name)]


def _by_itself(requested: Mapping[str, float | None]) -> list[str]:
    """Return the settings that say what ``auto`` comes to anyway."""
    cores, memory = requested["cores"], requested["memory_gib"]
    spelled = [f"cluster.cpus_per_task={cores:g}"] if cores is not None else []
    return spelled + ([f"cluster.mem_gb={memory:g}"] if memory is not None else [])


def _row(name: str, one: Mapping[str, Any], request: Request) -> list[str]:
    title, form = _NAMES[name]
    following = {
        "minutes": request.minutes and f"{request.minutes} min",
        "cores": request.cpus_per_task and f"{request.cpus_per_task} a process",
        "memory_gib": request.mem_gb and f"{request.mem_gb} GiB",
        "gpu_use": request.trials_per_gpu and f"{request.trials_per_gpu} trials a GPU",
    }
    shown = [form.format(one["median"]), form.format(one["maximum"])]
    wanted = "" if one["requested"] is None else form.format(one["requested"])
    return [title, *shown, wanted, str(following.get(name) or "")]


def _notes(
    trials: int,
    settings: Sequence[str],
    cluster: Cluster,
    figures: Mapping[str, Any],
    from_accounting: bool,
) -> list[str]:
    first = f"ask next for: {' '.join(settings)}" if settings else "what was asked for fits"
    fewest = min(one["n"] for one in figures.values())
    measured = "" if fewest == trials else f", some figures on {fewest} of them"
    notes = [f"From {trials} finished trials{measured}: {first}."]
    if settings:
        notes.append(MARGINS)
    if (slots := trials_at_once(cluster)) > 1:
        notes.append(f"A job runs {slots} trials at once, and what it asks for is for all of them.")
    if from_accounting:
        notes.append("Memory that a trial's record lacks is its job's, from Slurm's accounting.")
    if "gpu_memory_gib" in figures and "gpu_use" not in figures:
        notes.append("How busy the GPU was is not measured: pip install nvidia-ml-py.")
    return notes


def print_usage(table: UsageTable) -> None:
    """Print the table and its notes."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="used and asked for", title_justify="left")
    for name in COLUMNS:
        shown.add_column(name, justify="left" if name == COLUMNS[0] else "right")
    for row in table.rows:
        shown.add_row(*row)
    console = Console(soft_wrap=True, emoji=False, highlight=False)
    console.print(shown)
    for note in table.notes:
        console.print(note, markup=False)
