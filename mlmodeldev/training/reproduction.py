"""What is asked of a reproduction, and what comes of it.

Example::

    wish = Wish(Path("runs/digits/ab12cd34"), environment=True)
    Report(wish.trial, verdict="reproduced").as_json()
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.trial.comparison import Difference

FOLDER = ".reproduced"
"""Beside the sweeps' folders: trials that were run again."""
REPORT = "reproduction.json"
REQUIREMENTS = "requirements.txt"
ENVIRONMENT = "environment"
"""Folder of the environment that was built for a run."""


@dataclass
class Wish:
    """What is asked for.

    Attributes:
        trial: its folder.
        to: where to run it again; None: ``<runs_dir>/.reproduced/<sweep>/<trial>``.
        repository: a clone that has the commit; None: this project.
        python: the interpreter to run it with, or to build the environment of; None: this one.
        environment: build the recorded environment, and run it in that.
        fetch: take no data that are here; fetch and prepare them anew.
        anyway: run it, even where code, settings or data differ beforehand.
        dry_run: compare only what can be compared beforehand; nothing is left behind.
    """

    trial: Path
    to: Path | None = None
    repository: Path | None = None
    python: str | None = None
    environment: bool = False
    fetch: bool = False
    anyway: bool = False
    dry_run: bool = False


@dataclass
class Report:
    """What came of it.

    Attributes:
        trial: the original's folder.
        folder: where it was run again; None: nowhere.
        verdict: ``reproduced``, ``differs``, ``stopped`` (before the run), ``failed``, or of a dry
            run ``same origin``.
        differences: causes first: `mlmodeldev.trial.comparison.KINDS`.
        notes: what else there is to know.
        rows, tensors: how many were compared.
    """

    trial: Path
    folder: Path | None = None
    verdict: str = ""
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: int = 0
    tensors: int = 0

    @property
    def culprit(self) -> Difference | None:
        """The first thing that differs."""
        return next(iter(self.differences), None)

    def as_json(self) -> dict[str, Any]:
        """Return the report with plain values."""
        culprit = asdict(self.culprit) if self.culprit else None
        paths = {"trial": str(self.trial), "folder": self.folder and str(self.folder)}
        return {**asdict(self), **paths, "culprit": culprit}
