"""A measured CKA matrix: its numbers and files, and what the loggers get of it.

Example::

    result = Result.of(metric, "drift", against="start", has_diagonal=True, epoch=3)
    scalars(result)                    # {"cka/drift/mean_diagonal": 0.93, …}
    write_files(result, folder)        # cka/drift/epoch-0003.{npz,png}, cka/drift.png
    log_picture(result, folder, loggers, step)
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmodeldev.alignment.history import ERRORS
from mlmodeldev.alignment.pictures import draw_drift, draw_heatmap, save_figure
from mlmodeldev.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlmodeldev.alignment.present import PresentCKA

_WEIGHTS = {"pairs": "n(n-3)", "samples": "n", "equal": "1"}


@dataclass(frozen=True)
class Result:
    """One comparison at one epoch. `matrix` is (rows, columns), float64, NaN where undefined."""

    name: str
    matrix: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    against: str
    has_diagonal: bool
    epoch: int | None
    samples: int
    batches: int
    estimator: str
    kernel: str
    weighting: str
    feature_correction: bool = False
    left_out: tuple[str, ...] = ()
    errors: Mapping[str, np.ndarray] = field(default_factory=dict)
    """`significance.Significance.arrays`."""
    also: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls, metric: PresentCKA, name: str, *, against: str, has_diagonal: bool, epoch: int | None
    ) -> Result:
        """Return what the metric measured; it sums over the processes, so every rank calls this."""
        matrix, rows, columns = metric.result()
        return cls(
            name=name,
            matrix=matrix.cpu().numpy(),
            rows=rows,
            columns=columns,
            against=against,
            has_diagonal=has_diagonal,
            epoch=epoch,
            samples=metric.total_samples,
            batches=metric.total_batches,
            estimator=metric.estimator,
            kernel=metric.kernel,
            weighting=metric.weighting,
            feature_correction=metric.feature_correction,
            left_out=metric.left_out,
            errors=metric.significance().arrays(),
            also={name: one.cpu().numpy() for name, one in metric.present_also.items()},
        )

    @property
    def diagonal(self) -> np.ndarray | None:
        """CKA of the i-th row with the i-th column, where such pairs exist and say something."""
        if not self.has_diagonal or len(self.rows) != len(self.columns):
            return None
        return np.diagonal(self.matrix)

    @property
    def caption(self) -> str:
        """Estimator, kernel, counts and epoch, for under a picture."""
        estimator = {"unbiased": "unbiased (HSIC1)", "biased": "biased (HSIC0)"}[self.estimator]
        when = "" if self.epoch is None else f", epoch {self.epoch}"
        estimator += ", features corrected" if self.feature_correction else ""
        return (
            f"{estimator}, {self.kernel} kernel, {self.samples} samples in {self.batches} batches, "
            f"weights {_WEIGHTS[self.weighting]}{when}"
        )

    @property
    def tested(self) -> np.ndarray:
        """Cells that are above chance or not: defined, and not of a layer with itself."""
        itself = self.errors.get("itself", np.zeros(self.matrix.shape, dtype=bool))
        tested: np.ndarray = np.isfinite(self.matrix) & ~itself
        return tested

    @property
    def rule(self) -> str:
        """What a cell must be above to be significant; empty where that can't be said."""
        if "significant" not in self.errors:
            return ""
        count = int(self.errors.get("permutations", 0))
        return f"95 % of {count:,} permutations" if count else "2 x the noise floor"

    def best_pair(self) -> str:
        """Return a line on the most alike layers and their family-wise p-value, if there is one."""
        if "familywise_p" not in self.errors or not self.tested.any():
            return ""
        values = np.where(self.tested, self.matrix, -np.inf)
        row, column = np.unravel_index(values.argmax(), values.shape)
        p = self.errors["familywise_p"][row, column]
        names = f"{self.rows[row]} ~ {self.columns[column]}"
        return f"most alike: {names} {values[row, column]:.4f}, family-wise p = {p:.4f}"

    @property
    def other(self) -> str:
        """Short name of the model that the columns come from; empty for the live model."""
        return "" if self.against == "self" else Path(self.against).name


def scalars(result: Result) -> dict[str, float]:
    """Return the numbers to log, by key; means are over defined entries, NaN if there are none.

    ``cka/<name>/mean_diagonal`` where there is a diagonal, else ``cka/<name>/mean_off_diagonal``
    or ``cka/<name>/mean``; ``cka/<name>/undefined``, the count of NaN entries;
    ``cka/<name>/significant``, the share of tested entries above chance; and each diagonal
    entry: ``cka/<a>~<b>`` between layers of the live model, ``cka/<name>/<layer>`` against
    another one (``cka/<name>/<a>~<b>`` where the layers' names differ). ``cka/<name>/mutual_knn``
    and ``cka/<name>/cknna``, if measured, are means over the same entries as CKA's.
    """
    front = f"cka/{result.name}"
    values = {f"{front}/undefined": float((~np.isfinite(result.matrix)).sum())}
    for name, matrix in result.also.items():
        values[f"{front}/{name}"] = _mean(_entries(result, matrix))
    diagonal = result.diagonal
    if diagonal is None:
        values |= _overall_mean(result, front)
    else:
        values[f"{front}/mean_diagonal"] = _mean(diagonal)
        values |= _of_pairs(result, diagonal, front)
    if result.rule:
        above = result.errors["significant"][result.tested]
        values[f"{front}/significant"] = _mean(above.astype(float))
    return values


def write_files(result: Result, folder: Path, history: Mapping[str, Any] | None = None) -> None:
    """Write the matrix and its picture under ``folder/cka``; `history` adds the drift picture.

    ``<name>/epoch-0003.npz`` (matrix, rows, columns, samples, batches, epoch, estimator, kernel,
    weighting, against; feature_correction, left_out, mutual_knn, cknna if there are; of
    `Significance` what there is),
    ``<name>/epoch-0003.png``, ``<name>.png`` (the latest), and
    ``<name>/training.png``, layers x epochs.
    """
    base = folder / "cka"
    stem = base / result.name / f"epoch-{result.epoch:04d}"
    save_matrix(result, stem.with_suffix(".npz"))
    save_figure(picture(result), stem.with_suffix(".png"))
    with atomic_path(base / f"{result.name}.png") as temporary:
        shutil.copyfile(stem.with_suffix(".png"), temporary)
    if history and len(history["epochs"]) > 1:
        drift = draw_drift(
            history["values"],
            history["epochs"],
            history["layers"],
            title=f"{result.name} through training",
            caption=result.caption.rpartition(",")[0],
            errors={key: history[key] for key in ERRORS},
            rule=result.rule,
        )
        save_figure(drift, base / result.name / "training.png")


def log_picture(result: Result, folder: Path, loggers: Iterable[Any], step: int) -> None:
    """Send picture and matrix to each logger that takes such things, under one key for all epochs.

    ``cka/<name>/heatmap`` (W&B shows a slider over epochs) and ``cka/<name>/matrix`` (a table).
    A logger's failure is a warning: the files are there, and training goes on.
    """
    path = folder / "cka" / result.name / f"epoch-{result.epoch:04d}.png"
    for logger in loggers:
        try:
            _log_one(result, path, logger, step)
        except Exception as error:  # whatever a tracker raises, a picture is not worth the run
            warnings.warn(f"cka: {type(logger).__name__} took no picture: {error}", stacklevel=2)


def save_matrix(result: Result, path: Path) -> None:
    """Write the matrix and what it was made of as ``.npz``."""
    unwritten = ["name", "has_diagonal", "errors", "also"]
    unwritten += ["epoch"] if result.epoch is None else []
    unwritten += [one for one in ("left_out", "feature_correction") if not getattr(result, one)]
    arrays: dict[str, Any] = {k: v for k, v in vars(result).items() if k not in unwritten}
    arrays |= {key: value for key, value in result.errors.items() if key != "itself"}
    arrays |= result.also
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def picture(result: Result, title: str | None = None, row_label: str = "") -> Figure:
    """Return the heat map of a result, a matplotlib figure; titled by its name."""
    return draw_heatmap(
        result.matrix,
        result.rows,
        result.columns,
        title=result.name if title is None else title,
        caption=result.caption,
        row_label=row_label,
        column_label=result.other,
        hatched=result.tested & ~result.errors["significant"] if result.rule else None,
        rule=result.rule,
        floor=result.errors.get("floor"),
    )


def _of_pairs(result: Result, diagonal: np.ndarray, front: str) -> dict[str, float]:
    values = {}
    for row, column, value in zip(result.rows, result.columns, diagonal, strict=True):
        if result.against == "self":
            key = f"cka/{row}~{column}"
        else:
            key = f"{front}/{row}" if row == column else f"{front}/{row}~{column}"
        values[key] = float(value)
    return values


def _overall_mean(result: Result, front: str) -> dict[str, float]:
    if result.has_diagonal:
        return {f"{front}/mean": _mean(result.matrix)}
    return {f"{front}/mean_off_diagonal": _mean(_entries(result, result.matrix))}


def _entries(result: Result, matrix: np.ndarray) -> np.ndarray:
    """Return what a mean is over: the diagonal if it says something, else all there is to say."""
    if result.diagonal is not None:
        return np.diagonal(matrix)
    if result.has_diagonal:
        return matrix.ravel()
    return matrix[~np.eye(len(result.rows), dtype=bool)]


def _mean(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _log_one(result: Result, path: Path, logger: Any, step: int) -> None:
    key = f"cka/{result.name}"
    experiment: Any = getattr(logger, "experiment", None)  # of metrics.csv it is a path
    if hasattr(logger, "log_image"):
        of_rows = max(0, step - 1)  # as Lightning numbers the rows of this validation
        logger.log_image(f"{key}/heatmap", [str(path)], step=of_rows, caption=[result.caption])
    elif not isinstance(experiment, Path) and hasattr(experiment, "add_figure"):
        experiment.add_figure(f"{key}/heatmap", picture(result), step)
    if hasattr(logger, "log_table"):
        rows = [
            [row, *values] for row, values in zip(result.rows, result.matrix.tolist(), strict=True)
        ]
        logger.log_table(f"{key}/matrix", columns=["layer", *result.columns], data=rows)
