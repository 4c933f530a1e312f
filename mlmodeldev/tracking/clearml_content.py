"""What ClearML shows of a trial: its task's fields, and events, which are values of its charts.

Example::

    task_content(settings, folder)["hyperparams"]["optimizer"]["lr"]["value"]       # '0.002'
    scalar_events("ab12...", row)
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.secrets import mask
from mlmodeldev.settings.identity import says_where
from mlmodeldev.settings.overrides import shell_text
from mlmodeldev.tracking.flat_values import flat, settings_to_show, shown
from mlmodeldev.tracking.metadata import BY_HAND, at_most, run_name

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.tracking.timed_rows import TimedRow
    from mlmodeldev.trial.folder import TrialFolder

Event = dict[str, Any]
Parameters = dict[str, dict[str, dict[str, str]]]

LONGEST_VALUE, LONGEST_NAME = 6000, 250
SINGLE_VALUE = -(2**31)
"""Iteration by which ClearML's page knows a value that belongs to no step."""

_GENERAL = "General"
_NOT_IN_KEYS = re.compile(r"[^\w.=~-]+")


def project_name(settings: Settings) -> str:
    """Return the project: the one that is set, for a sweep's trials one below it."""
    chosen, sweep = settings.logger.clearml, settings.artefacts.sweep
    assert chosen is not None
    return chosen.project if sweep == BY_HAND else f"{chosen.project}/{sweep}"


def task_content(settings: Settings, folder: TrialFolder) -> dict[str, Any]:
    """Return the fields of a trial's task that stay, whatever becomes of it.

    ``script`` is what an agent runs that gets a copy of the task; it holds no uncommitted changes.
    """
    record = folder.read()
    return {
        "name": at_most(run_name(settings), LONGEST_NAME).ljust(3),
        "type": "training",
        "tags": task_tags(settings),
        "hyperparams": parameters(settings_to_show(settings)),
        "configuration": configuration(folder),
        "script": {
            "repository": record.get("remote") or "",
            "version_num": record.get("sha") or "",
            "branch": "",
            "entry_point": _entry_point(settings),
            "working_dir": ".",
            "binary": "python",
            "diff": "",
        },
    }


def task_tags(settings: Settings, state: str = "") -> list[str]:
    """Return the task's tags: of a sweep its name, and what its status does not tell."""
    sweep = settings.artefacts.sweep
    marks = [state] if state in ("pruned", "interrupted") else []
    return [*([] if sweep == BY_HAND else [sweep]), *marks]


def parameters(values: Mapping[str, Any], section: str = "") -> Parameters:
    """Return values as hyper-parameters, keys masked; the first name is the section's.

    Args:
        values: nested mappings.
        section: of all of them, where they have one in common.
    """
    made: Parameters = {}
    for name, value in flat(values):
        first, dot, rest = name.partition(".")
        place = (section, name) if section else (first, rest) if dot else (_GENERAL, first)
        text = shown(name, value, LONGEST_VALUE)
        entry = {"section": place[0], "name": place[1], "type": type(value).__name__, "value": text}
        made.setdefault(place[0], {})[place[1]] = entry
    return made


def configuration(folder: TrialFolder) -> dict[str, dict[str, str]]:
    """Return ``config.yaml`` as ClearML shows files of settings."""
    file = folder.path / "config.yaml"
    text = mask(file.read_text()) if file.is_file() else ""
    return {file.name: {"name": file.name, "type": "yaml", "value": text}}


def _entry_point(settings: Settings) -> str:
    """Return the trial's command as a module's, which an agent splits as a shell does."""
    given = {
        name: value
        for name, value in settings.overrides.items()
        if name.partition(".")[0] == "logger" or not says_where(name)
    }
    return mask(f"-m trainer {shell_text(given)}".strip())


# --- events


def title_and_series(name: str) -> tuple[str, str]:
    """Return a metric's chart and its line in it: ``train/loss`` is ``loss`` in ``train``."""
    title, sign, series = name.partition("/")
    names = (title, series) if sign and title and series else (name, name)
    return at_most(names[0], LONGEST_NAME), at_most(names[1], LONGEST_NAME)


def scalar_events(task: str, row: TimedRow) -> Iterator[Event]:
    """Yield a row's values; ClearML has neither NaN nor infinity, so those are left out."""
    for name, value in row.values.items():
        number = float(value)
        if math.isfinite(number):
            yield scalar_event(task, name, number, row.step, row.milliseconds)


def scalar_event(task: str, name: str, value: float, step: int, milliseconds: int) -> Event:
    """Return one value of a metric."""
    event = _event("training_stats_scalar", task, name, step, milliseconds)
    return {**event, "value": value}


def single_value(task: str, name: str, value: float) -> Event:
    """Return a value of the trial as a whole."""
    event = scalar_event(task, name, value, SINGLE_VALUE, _now())
    return {**event, "metric": "Summary", "variant": name}


def image_event(task: str, name: str, step: int, key: str, url: str) -> Event:
    """Return a picture that lies in the store of files."""
    event = _event("training_debug_image", task, name, step, _now())
    return {**event, "key": f"/{key}", "url": url}


def plot_event(task: str, name: str, step: int, plot: str) -> Event:
    """Return a drawing of Plotly's, given as JSON."""
    return {**_event("plot", task, name, step, _now()), "plot_str": plot}


def _event(kind: str, task: str, name: str, step: int, milliseconds: int) -> Event:
    title, series = title_and_series(name)
    return {
        "type": kind,
        "task": task,
        "metric": title,
        "variant": series,
        "iter": step,
        "timestamp": milliseconds,
    }


def event_identity(event: Event) -> tuple[Any, ...]:
    """Return by what the server knows an event: a later one takes its place."""
    return tuple(event.get(name) for name in ("type", "metric", "variant", "iter", "key"))


def _now() -> int:
    return int(1000 * time.time())


# --- files


def file_key(project: str, name: str, task: str, parts: Sequence[str]) -> str:
    """Return where a task's file lies in the store, as ClearML's own client would name it."""
    front = [*project.split("/"), f"{name}.{task}", *parts]
    return "/".join(_safe(part) for part in front)


def _safe(part: str) -> str:
    text = _NOT_IN_KEYS.sub("_", part)
    if len(text) <= LONGEST_NAME:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    stem, dot, ending = text.rpartition(".")
    return f"{(stem or ending)[:180]}-{digest}{dot}{ending[-40:]}"
