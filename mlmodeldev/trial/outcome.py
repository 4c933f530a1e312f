"""Whether two trials came to the same: each value of each row, and each bit of the weights.

Example::

    compared = compare_outcomes(Path("runs/digits/a"), Path("runs/digits/b"))
    str(compared.differences[0])        # "metric: train/loss at step 19: 0.51 | 0.52"
    compared.rows, compared.tensors     # 12, 34
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.trial.checkpoint import recovery_checkpoints
from mlmodeldev.trial.comparison import Difference
from mlmodeldev.trial.record import last_entry, read_record, read_text_rows

if TYPE_CHECKING:
    from torch import Tensor

TIMES = "time/"
"""Begins the names of metrics that tell of time."""
_NO_METRICS = {"epoch", "step"}


@dataclass
class Outcome:
    """What came of a comparison.

    Attributes:
        differences: the first metric that differs, and the first tensor.
        rows: rows of metrics that were compared.
        tensors: tensors that were compared.
    """

    differences: list[Difference] = field(default_factory=list)
    rows: int = 0
    tensors: int = 0


def compare_outcomes(a: Path, b: Path) -> Outcome:
    """Compare two trials' rows (but for times) and weights, bit for bit.

    Raises:
        UsageError: weights can't be read.
    """
    ours, theirs = _rows(a), _rows(b)
    outcome = Outcome(rows=min(len(ours), len(theirs)))
    outcome.differences += _first_of_rows(ours, theirs)
    for name in _weights_of_both(a, b):
        first, second = _tensors(a / name), _tensors(b / name)
        outcome.tensors += len({*first} & {*second})
        if difference := _first_of_tensors(name, first, second):
            outcome.differences.append(difference)
            break
    return outcome


# --- metrics


def _rows(folder: Path) -> list[dict[str, str]]:
    rows = read_text_rows(folder / "metrics.csv")[1]
    kept = [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]
    return [row for row in kept if {*row} - _NO_METRICS]


def _first_of_rows(a: list[dict[str, str]], b: list[dict[str, str]]) -> list[Difference]:
    for number, (ours, theirs) in enumerate(zip(a, b, strict=False), 1):
        if ours["step"] != theirs["step"]:
            steps = (f"step {each['step']}" for each in (ours, theirs))
            return [Difference("metric", f"row {number} of metrics.csv", *steps)]
        for name in [*ours, *(n for n in theirs if n not in ours)]:
            if ours.get(name) != theirs.get(name):
                where = f"{name} at step {ours.get('step')}"
                return [Difference("metric", where, ours.get(name), theirs.get(name))]
    if len(a) != len(b):
        return [Difference("metric", "rows of metrics.csv", len(a), len(b))]
    return []


def final_metrics(a: Path, b: Path) -> dict[str, tuple[Any, Any]]:
    """Return best and last values of both trials by name, times left out."""
    ours, theirs = _finals(a), _finals(b)
    names = [*ours, *(name for name in theirs if name not in ours)]
    return {name: (ours.get(name), theirs.get(name)) for name in names}


def _finals(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    metric: Mapping[str, Any] = record.get("metric") or {}
    best = {f"best {metric['name']}": metric.get("value")} if "name" in metric else {}
    last = {k: v for k, v in last_entry(folder).items() if not k.startswith(TIMES)}
    numbers = {k: v for k, v in last.items() if isinstance(v, int | float)}
    return {**best, **numbers, **(record.get("test") or {})}


# --- weights


def _weights_of_both(a: Path, b: Path) -> Iterator[Path]:
    """Yield the files of weights that both have: checkpoints, else what was exported."""
    newest = [next(iter(recovery_checkpoints(f / "checkpoints")), None) for f in (a, b)]
    candidates = [Path("checkpoints") / "best.ckpt"]
    if newest[0] and newest[1] and newest[0].name == newest[1].name:
        candidates.insert(0, Path("checkpoints") / newest[0].name)
    there = [name for name in candidates if (a / name).is_file() and (b / name).is_file()]
    if len(there) < 2:
        exports = [Path(name) / "model.safetensors" for name in ("last", "best")]
        there += [name for name in exports if (a / name).is_file() and (b / name).is_file()]
    yield from there


def _tensors(file: Path) -> dict[str, Tensor]:
    import torch

    from mlmodeldev.trial.checkpoint_values import read_weights

    return {n: value for n, value in read_weights(file).items() if isinstance(value, torch.Tensor)}


def _first_of_tensors(
    file: Path, a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> Difference | None:
    for name in [*a, *(n for n in b if n not in a)]:
        ours, theirs = a.get(name), b.get(name)
        where = f"{name} ({file})"
        if ours is None or theirs is None:
            return Difference("weights", where, _shape(ours), _shape(theirs))
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return Difference("weights", where, _shape(ours), _shape(theirs))
        place = _first_element(ours, theirs)
        if place is not None:
            where = f"{name}{list(place)} ({file})"
            return Difference("weights", where, ours[place].item(), theirs[place].item())
    return None


def _first_element(a: Tensor, b: Tensor) -> tuple[int, ...] | None:
    """Return the place of the first element whose bits differ; None: there is none."""
    import torch

    if not a.numel():
        return None
    bits = [each.contiguous().reshape(-1).view(torch.uint8) for each in (a, b)]
    differing = (bits[0] != bits[1]).nonzero()
    if not len(differing):
        return None
    index = int(differing[0]) // a.element_size()
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(index), a.shape))


def _shape(tensor: Tensor | None) -> str | None:
    return None if tensor is None else f"{list(tensor.shape)} {tensor.dtype}"
