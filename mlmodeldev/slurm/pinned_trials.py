"""Trials that others name: to go on from, to take weights from, to compare layers with.

Example::

    pinned_trials(runs)       # {Path("runs/digits/ab12cd34"): "digits/ef56ab78 (continue_from)"}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.project import project_root
from mlmodeldev.tracking.metadata import read_yaml
from mlmodeldev.trial.named import every_trial
from mlmodeldev.trial.record import read_record

_KEYS = ("continue_from", "init_from", "against")
_MENTIONS = re.compile(rf"({'|'.join(_KEYS)})['\"]?:(?! *(null|self|start|previous) *$)", re.M)
"""What a file of settings has that names a trial; nearly all have not, and are not parsed."""


def pinned_trials(runs_dir: Path) -> dict[Path, str]:
    """Return the trials that other trials' settings or records name, with the first that does."""
    trials = every_trial(runs_dir)
    by_path = {folder.resolve(): folder for folder in trials}
    by_name: dict[str, list[Path]] = {}
    for folder in trials:
        for name in (folder.name, f"{folder.parent.name}/{folder.name}"):
            by_name.setdefault(name, []).append(folder)
    bases = _bases(runs_dir)
    pinned: dict[Path, str] = {}
    for folder in trials:
        for key, value in _mentions(folder):
            parts = Path(value).parts
            named = {
                *by_name.get("/".join(parts[:1]), ()),
                *by_name.get("/".join(parts[:2]), ()),
                *_around(value, bases, by_path),
            }
            for other in named - {folder}:
                pinned.setdefault(other, f"{folder.parent.name}/{folder.name} ({key})")
    return pinned


def _bases(runs_dir: Path) -> list[Path]:
    """Return where a relative path in settings may begin."""
    bases = [Path.cwd(), runs_dir.parent, runs_dir]
    try:
        return [*bases, project_root()]
    except UsageError:
        return bases


def _around(value: str, bases: list[Path], by_path: dict[Path, Path]) -> Iterator[Path]:
    """Yield the trials whose folder a path is, or lies in."""
    for base in bases:
        path = (base / Path(value).expanduser()).resolve()
        for place in (path, *path.parents):
            if place in by_path:
                yield by_path[place]


def _mentions(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the settings of a trial that may name another, with their values."""
    parent = read_record(folder).get("parent")
    if isinstance(parent, dict) and isinstance(parent.get("folder"), str):
        yield str(parent.get("how", "parent")), parent["folder"]
    file = folder / "config.yaml"
    try:
        if _MENTIONS.search(file.read_text(encoding="utf-8")):
            yield from _values(read_yaml(file))
    except (OSError, ValueError):
        return


def _values(settings: Any) -> Iterator[tuple[str, str]]:
    items = settings.items() if isinstance(settings, dict) else ()
    for key, value in items:
        name = str(key).rpartition(".")[2]
        if name in _KEYS and isinstance(value, str) and value:
            yield name, value
        else:
            yield from _values(value)
    for value in settings if isinstance(settings, list) else ():
        yield from _values(value)
