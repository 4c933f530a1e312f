"""What a check says: a line that is OK, WARN or FAIL, with one mend.

Example::

    fail("disk of runs: 12 MiB free", "mlmodeldev trial gc")
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.slurm.sweep_state import SweepState

Level = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Attributes:
        level: FAIL: the next command would be refused, or would lose work; WARN: it goes on, and
            somebody should look.
        what: what is so.
        mend: the next command to type; empty where there is nothing to do.
        check: name of the check.
        where: the compute node; empty: this machine.
    """

    level: Level
    what: str
    mend: str = ""
    check: str = ""
    where: str = ""


def ok(what: str) -> Line:
    """Return a line that needs no mend."""
    return Line("OK", what)


def warn(what: str, mend: str) -> Line:
    """Return a line of what goes on, though somebody should look."""
    return Line("WARN", what, mend)


def fail(what: str, mend: str) -> Line:
    """Return a line of what would be refused, or would lose work."""
    return Line("FAIL", what, mend)


@dataclass(frozen=True)
class Scope:
    """What is looked at.

    Attributes:
        settings: of the sweep's first trial, else of the command line alone.
        root: the project's folder.
        sweep: the sweep as it stands; None: it can't be read, or is not looked at.
        problem: why it can't be read.
        notes: warnings of reading it.
        args: options of `add_sweep_options`.
        overrides: of which the settings were composed.
        login_key: of a job: whether there was a W&B key where it was submitted.
        in_job: whether this is a compute node, within a job.
    """

    settings: Settings
    root: Path
    sweep: SweepState | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()
    args: argparse.Namespace | None = None
    overrides: tuple[str, ...] = ()
    login_key: bool = False
    in_job: bool = False

    @property
    def runs(self) -> Path:
        """The runs folder."""
        return folder(self.settings.artefacts.runs_dir)

    @property
    def data(self) -> Path:
        """The data folder."""
        return folder(self.settings.artefacts.data_dir)

    @property
    def submits(self) -> bool:
        """Whether trials become Slurm jobs."""
        return self.settings.cluster.launcher == "slurm"


@dataclass(frozen=True)
class Check:
    """A function that looks at one thing, and when it is called.

    Attributes:
        name: as it is shown; docs/doctor.md has a row for it.
        look: returns its lines; nothing: there is nothing to say here.
        quick: needs no network, and a moment only.
        on_node: is made by ``doctor --job``, too.
        in_submit: what ``submit`` does by itself: gives the same ``warning``, or looks at ``all``.
        seconds: that it may take.
    """

    name: str
    look: Callable[[Scope], Iterable[Line]]
    quick: bool = False
    on_node: bool = False
    in_submit: Literal["", "warning", "all"] = ""
    seconds: float = 20.0


def folder(name: str) -> Path:
    """Return a folder of the settings as an absolute path."""
    return Path(name).expanduser().absolute()


def nearest_folder(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    return next(parent for parent in (path, *path.parents) if parent.is_dir())
