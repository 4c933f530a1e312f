"""Which trials and sweeps are looked at for what may go, and how it goes.

Example::

    surveyed = survey(select(["digits"], Path("runs")), Choice(states=True))
    removed = remove(surveyed)         # bytes; what has changed meanwhile stays
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlmodeldev.atomic import remove_at_once
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import ProcessLock
from mlmodeldev.slurm.job_leavings import EMPTY, remove_empty, sweep_leavings, unnamed_snapshots
from mlmodeldev.slurm.pinned_trials import pinned_trials
from mlmodeldev.slurm.reproductions import Reproduction, droppable, reproductions
from mlmodeldev.slurm.submission import FOLDER
from mlmodeldev.slurm.trial_sizes import Choice, Drop, TrialSize, measure
from mlmodeldev.training.reproduction import FOLDER as REPRODUCED
from mlmodeldev.trial.collected import drop
from mlmodeldev.trial.named import every_trial, named_folder


@dataclass
class Selection:
    """What is looked at.

    Attributes:
        runs_dir: holds the sweeps' folders.
        trials: their folders.
        sweeps: folders of those that are looked at whole.
        whole: whether that is the runs folder, copies of the code and all.
    """

    runs_dir: Path
    trials: list[Path] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)
    whole: bool = False


@dataclass
class Survey:
    """What there is and what may go.

    Attributes:
        choice: what was asked to go.
        selection: what was looked at.
        trials: the largest first.
        others: what may go beside the trials, by the sweep's folder, or by that of all runs.
        reproductions: trials that were run again, all of them.
        notes: what could not be looked at, in words.
    """

    choice: Choice
    selection: Selection
    trials: list[TrialSize] = field(default_factory=list)
    others: dict[Path, list[Drop]] = field(default_factory=dict)
    reproductions: list[Reproduction] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def drops(self) -> list[Drop]:
        """All that may go."""
        others = (each for drops in self.others.values() for each in drops)
        return [*(each for trial in self.trials for each in trial.drops), *others]

    @property
    def free(self) -> int:
        """Bytes of all that may go."""
        return sum(each.size for each in self.drops)


def select(names: Sequence[str], runs_dir: Path) -> Selection:
    """Return what names say: sweeps, sweep files, trials; all where there is none.

    Raises:
        UsageError: a name is none of these.
    """
    runs_dir = runs_dir.expanduser().absolute()
    every = every_trial(runs_dir)
    if not names:
        sweeps = [p for p in sorted(runs_dir.glob("*")) if p.is_dir() and p.name[0] != "."]
        return Selection(runs_dir, every, sweeps, whole=True)
    selection = Selection(runs_dir)
    for name in names:
        folder = _folder(name, runs_dir, every)
        if (folder / "trial.json").is_file():
            selection.trials.append(folder)
        else:
            selection.sweeps.append(folder)
            selection.trials += [trial for trial in every if trial.parent == folder]
    selection.trials = list(dict.fromkeys(selection.trials))
    return selection


def _folder(name: str, runs_dir: Path, every: Sequence[Path]) -> Path:
    """Return the folder of a sweep or trial."""
    if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
        from mlmodeldev.sweep import load

        name = load(name).folder
    return named_folder(name, runs_dir, every)


def survey(selection: Selection, choice: Choice) -> Survey:
    """Look at all that is selected."""
    result = Survey(choice, selection)
    pinned = pinned_trials(selection.runs_dir)
    trials = [measure(folder, choice, pinned) for folder in selection.trials]
    result.trials = sorted(trials, key=lambda trial: trial.size, reverse=True)
    result.reproductions = _reproductions(selection)
    if choice.reproductions:
        place = selection.runs_dir / REPRODUCED
        result.others[place] = droppable(result.reproductions, choice.older_than)
    for sweep in selection.sweeps:
        with _noted(result.notes, f"{sweep.name}: its job logs stay"):
            result.others[sweep] = sweep_leavings(sweep, choice.older_than)
    if selection.whole:
        with _noted(result.notes, "copies of code stay"):
            runs_dir = selection.runs_dir
            result.others[runs_dir] = unnamed_snapshots(runs_dir, choice.older_than)
    return result


def _reproductions(selection: Selection) -> list[Reproduction]:
    """Return those of all sweeps, or of the selected ones, be these there any more or not."""
    if selection.whole:
        return reproductions(selection.runs_dir)
    names = [sweep.name for sweep in selection.sweeps]
    return [each for name in names for each in reproductions(selection.runs_dir, name)]


@contextlib.contextmanager
def _noted(notes: list[str], consequence: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        notes.append(f"{consequence}: {error}")


def remove(surveyed: Survey) -> tuple[int, list[str]]:
    """Remove what may go; return its bytes, and a line for each thing that stays after all."""
    removed, notes = 0, []
    for trial in surveyed.trials:
        if not trial.drops:
            continue
        try:
            if drop(trial.folder, trial.record, [each.path for each in trial.drops]):
                removed += trial.free
            else:
                notes.append(f"{trial.name}: has begun again, and is left alone")
        except UsageError as error:
            notes.append(str(error))
    for folder, drops in surveyed.others.items():
        removed += _remove_others(folder, drops, surveyed, notes)
    return removed, notes


def _remove_others(folder: Path, drops: list[Drop], surveyed: Survey, notes: list[str]) -> int:
    """Remove what jobs have left; of a sweep while nobody submits its trials."""
    from filelock import Timeout

    if folder == surveyed.selection.runs_dir / REPRODUCED:
        now = droppable(_reproductions(surveyed.selection), surveyed.choice.older_than)
        seen = {each.path for each in drops}
        return sum(each.size for each in now if each.path in seen and _remove_one(each, notes))
    is_sweep = folder != surveyed.selection.runs_dir
    locks = is_sweep and (folder / FOLDER).is_dir() and drops
    lock = ProcessLock(folder / FOLDER / ".lock", timeout=0) if locks else contextlib.nullcontext()
    removed, older_than = 0, surveyed.choice.older_than
    try:
        with lock, _noted(notes, f"{folder}: nothing was removed"):
            again = sweep_leavings if is_sweep else unnamed_snapshots
            still = {each.path for each in again(folder, older_than)} if drops else set()
            for each in drops:
                if each.path in still and _remove_one(each, notes):
                    removed += each.size
    except Timeout:
        notes.append(f"{folder}: another command submits its trials; its job logs stay")
    return removed


def _remove_one(each: Drop, notes: list[str]) -> bool:
    try:
        (remove_empty if each.part == EMPTY else remove_at_once)(each.path)
    except OSError as error:
        notes.append(f"{each.path}: can't be removed ({error.strerror})")
        return False
    return True
