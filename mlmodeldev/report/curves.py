"""Learning curves for the page: few enough points that the file stays small.

Example::

    thin([0, 1, 2, 3], [4.0, 3.0, 9.0, 1.0], 4)       # ([0, 1, 2, 3], [4.0, 3.0, 9.0, 1.0])
    read_curves(folder, ["val/accuracy"], points=100)  # {"val/accuracy": [[39, 78], [0.3, 0.6]]}
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.trial.record import TIME, read_text_rows

ALL_POINTS = 200_000
"""Of the whole page: about 2.5 MB."""
MOST_POINTS, FEWEST_POINTS = 400, 20
"""Of one curve."""
WHOLE_TRIALS = 200
"""So many trials, the best and the failed ones first, show every metric; the rest the sweep's."""
MOST_METRICS = 24
"""With curves; how many have none for want of room is said on the page."""
_HIDDEN = ("cka/", "test/", "test_", "mutual_knn", TIME)
"""How columns begin that are no curves, or too many of them: heat maps show the layers."""

Curve = tuple[list[int], list[float | None]]
"""Steps, and the values there; None where they are not finite."""


def column_names(folders: Iterable[Path], first: str) -> list[str]:
    """Return the metrics that these trials have curves of, `first` in front, validation's next.

    Of CKA only the means over all layers are among them.
    """
    names: dict[str, None] = {first: None}
    for folder in folders:
        columns = read_text_rows(folder / "metrics.csv")[0]
        names |= dict.fromkeys(name for name in columns if _is_curve(name))
    return sorted(names, key=lambda name: (name != first, not name.startswith("val"), name))


def _is_curve(name: str) -> bool:
    if name in ("epoch", "step"):
        return False
    return not name.startswith(_HIDDEN) or name.endswith("/mean_diagonal")


def read_curves(folder: Path, metrics: Collection[str], points: int) -> dict[str, Curve]:
    """Return a trial's curves by metric.

    Args:
        points: of each curve at most.
    """
    curves: dict[str, Curve] = {}
    for row in read_text_rows(folder / "metrics.csv")[1]:
        for name in metrics:
            if name in row:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(int(row["step"]))
                values.append(_number(row[name]))
    return {name: thin(*curve, points) for name, curve in curves.items()}


def points_each(trials: int, metrics: int) -> int:
    """Return how many points a curve may have for the page to stay small."""
    curves = min(trials, WHOLE_TRIALS) * max(metrics, 1) + max(0, trials - WHOLE_TRIALS)
    return max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(curves, 1)))


def thin(steps: Sequence[int], values: Sequence[float | None], points: int) -> Curve:
    """Return at most so many points: of each stretch the lowest and the highest, and the last.

    What is not finite is kept where a stretch has such a value, for the gap is what one looks for.
    """
    count = len(steps)
    if count <= points:
        return list(steps), [_short(value) for value in values]
    stretches = max(1, (points - 2) // 2)
    kept = {0, count - 1}
    for number in range(stretches):
        stretch = range(number * count // stretches, (number + 1) * count // stretches)
        finite = [(values[i], i) for i in stretch if values[i] is not None]
        gaps = [i for i in stretch if values[i] is None]
        kept |= set(gaps[:1])
        kept |= {min(finite)[1], max(finite)[1]} if finite else set()
    order = sorted(kept)
    return [steps[i] for i in order], [_short(values[i]) for i in order]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _short(value: float | None) -> float | None:
    """Five digits are more than a screen shows."""
    return None if value is None else float(f"{value:.5g}")


def as_plain(curves: dict[str, Curve], metrics: Sequence[str]) -> dict[str, Any]:
    """Return curves by the number of their metric, which is shorter than its name."""
    return {str(metrics.index(name)): list(curve) for name, curve in curves.items()}
