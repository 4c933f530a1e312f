"""A trial by the name that a user gives it: its folder, its path under ``runs/``, or its id.

Example::

    trial_folder("ab12cd34", Path("runs"))            # runs/single/ab12cd34
    trial_folder("single/ab12cd34", Path("runs"))     # the same
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlmodeldev.errors import UsageError, nearest

RECORD = "trial.json"


def trial_folder(name: str, runs: Path) -> Path:
    """Return the folder of a trial.

    Args:
        name: its folder, its path under the runs folder, or its id.
        runs: folder of all sweeps.

    Raises:
        UsageError: there is no such trial, or there are several.
    """
    named = trials_named(name, runs)
    if len(named) > 1:
        listed = ", ".join(str(folder) for folder in named)
        raise UsageError(f"{name}: in several sweeps, name one by its path: {listed}")
    if named:
        return named[0]
    for folder in _places(name, runs):
        if (folder.parent / RECORD).is_file():
            raise UsageError(f"{name}: is a part of a trial; name the trial: {folder.parent}")
        if folder.is_dir():
            raise UsageError(f"{name}: holds no trial (no {RECORD})")
    ids = [each.parent.name for each in _records(runs, "*")]
    raise UsageError(f"{name}: no such folder, and no such trial in {runs}{nearest(name, ids)}")


def trials_named(name: str, runs: Path) -> list[Path]:
    """Return the folders that a name can mean: one as a rule, several of an id in many sweeps."""
    for place in _places(name, runs):
        if (place / RECORD).is_file():
            return [place.absolute()]
    is_id = Path(name).name == name and not name.startswith(".") and not set(name) & set("*?[")
    return sorted(each.parent for each in _records(runs, name)) if is_id else []


def _places(name: str, runs: Path) -> Iterator[Path]:
    """Yield where a path may lie; a job's working directory is not that of who wrote it."""
    given = Path(name).expanduser()
    yield given
    if not given.is_absolute():
        yield runs / given
        if given.parts[:1] == (runs.name,):
            yield runs.parent / given


def _records(runs: Path, trial: str) -> Iterator[Path]:
    """Yield the records of trials of an id; hidden folders hold what was moved aside."""
    for record in runs.absolute().glob(f"*/{trial}/{RECORD}"):
        if not record.parent.name.startswith("."):
            yield record
