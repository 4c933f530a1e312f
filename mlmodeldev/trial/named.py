"""Sweeps and trials by the names that a command line gives: a path, a name below runs/, an id.

Example::

    named_folder("digits", Path("runs"))            # a sweep's folder
    named_folder("ab12cd34", Path("runs"))          # a trial's, of whichever sweep
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlmodeldev.atomic import is_leftover
from mlmodeldev.errors import UsageError, nearest


def every_trial(runs_dir: Path) -> list[Path]:
    """Return the folders of all trials, also of those that were moved aside."""
    folders = (file.parent for file in runs_dir.glob("*/*/trial.json"))
    inner = (f for f in folders if not f.parent.name.startswith(".") and not is_leftover(f.name))
    return sorted(inner)


def named_folder(name: str, runs_dir: Path, trials: Sequence[Path] | None = None) -> Path:
    """Return the folder of a sweep or trial.

    Args:
        name: a path, a name below ``runs_dir``, or a trial's id alone.
        runs_dir: holds the sweeps' folders; absolute.
        trials: of `every_trial`, where the caller has them.

    Raises:
        UsageError: there is none, or several sweeps have a trial of this name.
    """
    every = every_trial(runs_dir) if trials is None else trials
    for place in (runs_dir / name, Path(name).expanduser().absolute()):
        is_sweep = place.parent == runs_dir and not place.name.startswith(".")
        if place.is_dir() and (is_sweep or (place / "trial.json").is_file()):
            return place
    same = [trial for trial in every if trial.name == name]
    if len(same) == 1:
        return same[0]
    if same:
        listed = ", ".join(f"{trial.parent.name}/{name}" for trial in same)
        raise UsageError(f"{name}: several sweeps have a trial of this name: {listed}")
    choices = {part for t in every for part in (t.name, t.parent.name)}
    raise UsageError(f"{name}: no such sweep or trial in {runs_dir}{nearest(name, choices)}")
