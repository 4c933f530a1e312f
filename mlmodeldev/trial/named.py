"""Sweeps and trials by the names that a command line gives: a path, a name below runs/, an id.

Example::

    trial_folder("ab12cd34", Path("runs"))          # runs/single/ab12cd34, of whichever sweep
    trial_folder("single/ab12cd34", Path("runs"))   # the same
    named_folder("digits", Path("runs"))            # a sweep's folder, or a trial's
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mlmodeldev.atomic import is_leftover
from mlmodeldev.errors import UsageError, nearest

RECORD = "trial.json"
RUNS_DIR_HELP = "where sweeps lie (conf's)"


def runs_folder(given: Path | None) -> Path:
    """Return the folder of all sweeps: the one that is given, else that of the settings.

    Outside of a project, where trials are named by their folders, it is ``runs``.
    """
    if given is None:
        from mlmodeldev.settings.composition import compose_settings

        try:
            given = Path(compose_settings([], partial=True).artefacts.runs_dir)
        except UsageError:
            given = Path("runs")
    return given.expanduser().absolute()


def trial_folder(name: str, runs: Path) -> Path:
    """Return the folder of a trial.

    Args:
        name: its folder, its path under the runs folder, or its id.
        runs: folder of all sweeps.

    Raises:
        UsageError: there is no such trial, or there are several.
    """
    folders = trials_named(name, runs)
    if folders:
        return _only(name, folders)
    for folder in _places(name, runs):
        if (folder.parent / RECORD).is_file():
            raise UsageError(f"{name}: is a part of a trial; name the trial: {folder.parent}")
        if folder.is_dir():
            raise UsageError(f"{name}: holds no trial (no {RECORD})")
    ids = [each.name for each in every_trial(runs) if not each.name.startswith(".")]
    raise UsageError(f"{name}: no such folder, and no such trial in {runs}{nearest(name, ids)}")


def trials_named(name: str, runs: Path) -> list[Path]:
    """Return the folders that a name can mean: one as a rule, several of an id in many sweeps."""
    for place in _places(name, runs):
        if (place / RECORD).is_file():
            return [place.absolute()]
    is_id = Path(name).name == name and not name.startswith(".")
    return [folder for folder in every_trial(runs) if folder.name == name] if is_id else []


def named_folder(name: str, runs: Path, trials: Sequence[Path] | None = None) -> Path:
    """Return the folder of a sweep or trial.

    Args:
        name: a path, a name below ``runs``, or a trial's id alone.
        runs: holds the sweeps' folders; absolute.
        trials: of `every_trial`, where the caller has them.

    Raises:
        UsageError: there is none, or several sweeps have a trial of this name.
    """
    every = every_trial(runs) if trials is None else trials
    for place in (runs / name, Path(name).expanduser().absolute()):
        is_sweep = place.parent == runs and not place.name.startswith(".")
        if place.is_dir() and (is_sweep or (place / RECORD).is_file()):
            _check_one(name, runs, [trial for trial in every if trial.name == name])
            return place
    if same := [trial for trial in every if trial.name == name]:
        return _only(name, same)
    choices = {part for t in every for part in (t.name, t.parent.name)}
    raise UsageError(f"{name}: no such sweep or trial in {runs}{nearest(name, choices)}")


def every_trial(runs: Path) -> list[Path]:
    """Return the folders of all trials, also of those that were moved aside, which are hidden."""
    folders = (file.parent for file in runs.absolute().glob(f"*/*/{RECORD}"))
    inner = (f for f in folders if not f.parent.name.startswith(".") and not is_leftover(f.name))
    return sorted(inner)


def _check_one(name: str, runs: Path, trials: Sequence[Path]) -> None:
    """Refuse a bare name that a sweep and a trial have; a path names one."""
    if trials and (runs / name).is_dir():
        raise UsageError(
            f"{name}: a sweep and a trial have this name; name the sweep by its folder,"
            f" {runs / name}, the trial by {trials[0].parent.name}/{name}"
        )


def _only(name: str, folders: Sequence[Path]) -> Path:
    if len(folders) == 1:
        return folders[0]
    listed = ", ".join(f"{folder.parent.name}/{folder.name}" for folder in folders)
    raise UsageError(f"{name}: several sweeps have a trial of this name: {listed}")


def _places(name: str, runs: Path) -> Iterator[Path]:
    """Yield where a path may lie; a job's working directory is not that of who wrote it."""
    given = Path(name).expanduser()
    yield given
    if not given.is_absolute():
        yield runs / given
        if given.parts[:1] == (runs.name,):
            yield runs.parent / given
