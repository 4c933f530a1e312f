"""What a trial came to: its weights, its rows, its files.

Example::

    outcome(runs / "ours" / "ab12cd34").weights["last"]
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

_STEP = re.compile(r"^checkpoints/step-\d+")
"""Of the last two of a trial: which ones, its interruptions decide."""
_ATTEMPT = re.compile(r"-\d+(?=\.(?:json|diff|zip)$)")
_MAY_BE = {
    "traceback.txt", "log.txt", "changes.diff", "source.zip", "environment.json", "sync.json",
    "kept.json",
}  # fmt: skip
"""Files of a folder that one trial has and another need not have."""


@dataclass(frozen=True)
class Outcome:
    """What must be the same.

    Attributes:
        weights: digests of best/ and last/.
        rows: of metrics.csv, without the columns that tell of time.
        files: names in the folder, but for those that depend on what happened.
    """

    weights: dict[str, str]
    rows: list[dict[str, str]]
    files: frozenset[str]


def outcome(folder: Path) -> Outcome:
    """Read a trial's folder."""
    digests = {
        name: hashlib.sha256((folder / name / "model.safetensors").read_bytes()).hexdigest()
        for name in ("best", "last")
    }
    return Outcome(digests, rows(folder), files(folder))


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv, without empty cells and the columns that tell of time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if v and k and not k.startswith("time/")}
            for row in csv.DictReader(file)
        ]


def files(folder: Path) -> frozenset[str]:
    """Return the names of the files in a trial's folder."""
    relative = [str(f.relative_to(folder)) for f in folder.rglob("*") if not f.is_dir()]
    own = [name for name in relative if not name.startswith("wandb/")]
    return frozenset({_STEP.sub("step", _ATTEMPT.sub("", name)) for name in own} - _MAY_BE)
