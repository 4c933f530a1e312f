"""What a tracker shows of a trial, whichever it is, and what the tests need of a tracker."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

Series = dict[str, list[tuple[int, float]]]
Entrance = tuple[Callable[..., None], tuple[Any, ...]]
"""A module's function and its arguments, which are called in a trial's process."""


@dataclass
class Shown:
    """A trial, as a tracker shows it.

    Attributes:
        settings: dotted name to text.
        metrics: name to (optimizer step, value), in the tracker's order.
        pictures: key to how many there are under it.
        models: name to SHA-256 of its weights.
        status: in the tracker's own word.
    """

    settings: dict[str, str] = field(default_factory=dict)
    metrics: Series = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    status: str = ""


class Tracker:
    """A tracker under test.

    Attributes:
        name: as in ``logger=``.
        models: which exported folders it keeps of a trial by hand.
        statuses: its word for each state of a trial; empty where it has no states.
        precision: relative error of its values.
        once: whether it has one value a step, also where two rows have the step.
        away: what it prints when it fails.
        catches_up: whether ``SlurmTrain.py sync`` sends what it missed.
    """

    name: ClassVar[str]
    models: ClassVar[tuple[str, ...]] = ()
    statuses: ClassVar[dict[str, str]] = {}
    precision: ClassVar[float] = 0.0
    once: ClassVar[bool] = False
    away: ClassVar[str]
    catches_up: ClassVar[bool] = False

    def prepare(self, runs: Path) -> None:
        """Make what trials in a folder of runs find there."""

    def entrance(self) -> Entrance | None:
        """Return what is called in a trial's process before it begins."""
        return None

    def breakage(self, trial: Path) -> Entrance:
        """Break it for a trial; return what breaks it in the trial's process."""
        raise NotImplementedError

    def repair(self, runs: Path) -> None:
        """Mend what was broken."""

    def spelled(self, metric: str) -> str:
        """Return the tracker's spelling of a metric's name."""
        return metric

    def read(self, trial: Path) -> Shown:
        """Return what there is of the trial of a folder."""
        raise NotImplementedError

    def check_more(self, trial: Path) -> None:
        """Check what this tracker alone promises of a trial that was killed and is done."""

    def close(self) -> None:
        """End what the tests began."""


def nothing() -> None:
    """What breaks nothing in the trial's process."""


def csv_series(file: Path) -> Series:
    """Return the series of ``metrics.csv`` but those of time."""
    series: Series = defaultdict(list)
    with file.open() as lines:
        for row in csv.DictReader(lines):
            for name, text in row.items():
                if text and name != "step" and not name.startswith("time/"):
                    series[name].append((int(row["step"]), float(text)))
    return dict(series)


def flat(values: dict[str, Any], front: str = "") -> dict[str, str]:
    """Return nested values under dotted names, as text."""
    result: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{front}{name}.")
        else:
            result[f"{front}{name}"] = str(value)
    return result


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def weights(trial: Path) -> dict[str, str]:
    """Return the digests of the models in a trial's folder."""
    files = {name: trial / name / "model.safetensors" for name in ("best", "last")}
    return {name: digest(file.read_bytes()) for name, file in files.items() if file.is_file()}
