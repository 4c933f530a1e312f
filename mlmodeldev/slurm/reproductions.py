"""Trials that were run again (`trial reproduce`): how large they are, and which are finished.

Example::

    reproductions(Path("runs"), "digits")       # of one sweep; None: of all
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlmodeldev.atomic import is_leftover
from mlmodeldev.slurm.trial_sizes import RECENT_SECONDS, Drop, is_recent, tree_size
from mlmodeldev.training.reproduction import FOLDER, REPORT
from mlmodeldev.trial.record import read_record

PART = "reproductions"


@dataclass(frozen=True)
class Reproduction:
    """A folder of ``runs/.reproduced/<sweep>/``.

    Attributes:
        folder: with the code, the run, and the environment where one was built.
        size: bytes.
        finished: whether it was compared with its original, or is a leftover of a removal.
        registered: whether a version of a model names it.
    """

    folder: Path
    size: int
    finished: bool
    registered: bool


def reproductions(runs_dir: Path, sweep: str | None = None) -> list[Reproduction]:
    """Return all that were made of a sweep's trials, or of any."""
    return [
        Reproduction(
            folder,
            tree_size(folder),
            (folder / REPORT).is_file() or is_leftover(folder.name),
            any(read_record(file.parent).get("registered") for file in _records(folder)),
        )
        for folder in sorted((runs_dir / FOLDER).glob(f"{sweep or '*'}/*"))
        if folder.is_dir() and not folder.is_symlink()
    ]


def _records(folder: Path) -> Iterator[Path]:
    return folder.glob("runs/*/*/trial.json")


def droppable(reproduced: list[Reproduction], older_than: float) -> list[Drop]:
    """Return the finished ones that nothing names.

    Args:
        reproduced: of `reproductions`.
        older_than: seconds since the comparison; a leftover is an hour old at least.
    """
    return [
        Drop(each.folder, PART, each.size)
        for each in reproduced
        if each.finished and not each.registered and not _is_young(each.folder, older_than)
    ]


def _is_young(folder: Path, older_than: float) -> bool:
    report = folder / REPORT
    if report.is_file():
        return is_recent(report, older_than)
    return is_recent(folder, max(older_than, RECENT_SECONDS))
