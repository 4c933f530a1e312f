"""A measured CKA matrix: its numbers, files and heat maps, and what the loggers get of it.

    result = Result.of(metric, "drift", against="start", has_diagonal=True, epoch=3)
    scalars(result)                    # {"cka/drift/mean_diagonal": 0.93, …}
    write_files(result, folder)        # cka/drift/epoch-0003.{npz,png}, cka/drift.png
    log_picture(result, folder, loggers, step)

The figures are readable in print: names without what all of them begin with, values in the cells
where they fit, one scale of colours from 0 to 1 (-1 where a value is below 0), grey for undefined.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmodeldev.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlmodeldev.alignment.present import PresentCKA

_WEIGHTS = {"pairs": "n(n-3)", "samples": "n", "equal": "1"}
VALUES_UP_TO = 16
"""Cells hold their value up to this many rows and columns."""
_LONGEST_NAME = 36
_DPI = 200
_UNDEFINED = "#bdbdbd"


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
    left_out: tuple[str, ...] = ()
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
            left_out=metric.left_out,
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
        return (
            f"{estimator}, {self.kernel} kernel, {self.samples} samples in {self.batches} batches, "
            f"weights {_WEIGHTS[self.weighting]}{when}"
        )

    @property
    def other(self) -> str:
        """Short name of the model that the columns come from; empty for the live model."""
        return "" if self.against == "self" else Path(self.against).name


def scalars(result: Result) -> dict[str, float]:
    """Return the numbers to log, by key; means are over defined entries, NaN if there are none.

    ``cka/<name>/mean_diagonal`` where there is a diagonal, else ``cka/<name>/mean_off_diagonal``
    or ``cka/<name>/mean``; ``cka/<name>/undefined``, the count of NaN entries; and each diagonal
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
        return values | _overall_mean(result, front)
    values[f"{front}/mean_diagonal"] = _mean(diagonal)
    for row, column, value in zip(result.rows, result.columns, diagonal, strict=True):
        if result.against == "self":
            key = f"cka/{row}~{column}"
        else:
            key = f"{front}/{row}" if row == column else f"{front}/{row}~{column}"
        values[key] = float(value)
    return values


def write_files(result: Result, folder: Path, history: Mapping[str, Any] | None = None) -> None:
    """Write the matrix and its picture under ``folder/cka``; `history` adds the drift picture.

    ``<name>/epoch-0003.npz`` (matrix, rows, columns, samples, batches, epoch, estimator, kernel,
    weighting, against; left_out, mutual_knn, cknna if there are), ``<name>/epoch-0003.png``,
    ``<name>.png`` (the latest), and
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
    unwritten = ["name", "has_diagonal", "also"]
    unwritten += ["epoch"] if result.epoch is None else []
    unwritten += [] if result.left_out else ["left_out"]
    arrays: dict[str, Any] = {k: v for k, v in vars(result).items() if k not in unwritten}
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
    )


def draw_heatmap(
    matrix: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    caption: str = "",
    row_label: str = "",
    column_label: str = "",
) -> Figure:
    """Draw CKA `matrix` (len(rows), len(columns)); first row at the bottom, as in the papers.

    The common front of the layer names moves to the axis label; `row_label` and `column_label`
    (model names) go before it. Returns a matplotlib `Figure` that no global state knows.
    """
    values = np.asarray(matrix, dtype=float)
    figure, axes = _figure(len(columns), len(rows))
    image = _paint(axes, values)
    prefix, names = common_front(rows)
    _label_axis(axes, "y", names, _joined(row_label, prefix))
    prefix, names = common_front(columns)
    _label_axis(axes, "x", names, _joined(column_label, prefix))
    return _finish(figure, axes, image, title, _with_undefined(caption, values))


def draw_drift(
    values: Any,
    epochs: Sequence[int],
    layers: Sequence[str],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw CKA through training: `values` (len(epochs), len(layers)), layers up, epochs across."""
    table = np.asarray(values, dtype=float).T
    figure, axes = _figure(len(epochs), len(layers), widest=6.5)
    image = _paint(axes, table)
    prefix, names = common_front(layers)
    _label_axis(axes, "y", names, _joined("", prefix))
    _label_epochs(axes, epochs)
    return _finish(figure, axes, image, title, _with_undefined(caption, table))


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` in the format of the suffix, whole or not at all; same input, same bytes."""
    metadata = {"Date": None} if path.suffix == ".svg" else None
    import matplotlib

    with atomic_path(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "mlmodeldev"}):
        figure.savefig(temporary, dpi=_DPI, metadata=metadata)


def common_front(names: Sequence[str]) -> tuple[str, list[str]]:
    """Split off the dotted parts that all names begin with: ``("image.layers", ["0", "1"])``."""
    split = [name.split(".") for name in names]
    shared = 0
    while all(len(parts) > shared + 1 for parts in split) and (
        len({parts[shared] for parts in split}) == 1
    ):
        shared += 1
    if len(names) < 2 or not shared:
        return "", list(names)
    return ".".join(split[0][:shared]), [".".join(parts[shared:]) for parts in split]


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
        logger.log_image(f"{key}/heatmap", [str(path)], caption=[result.caption])
    elif not isinstance(experiment, Path) and hasattr(experiment, "add_figure"):
        experiment.add_figure(f"{key}/heatmap", picture(result), step)
    if hasattr(logger, "log_table"):
        rows = [
            [row, *values] for row, values in zip(result.rows, result.matrix.tolist(), strict=True)
        ]
        logger.log_table(f"{key}/matrix", columns=["layer", *result.columns], data=rows)


def _cell_inches(count: int) -> float:
    """Side of a cell: room for a value where values are shown, for a line of 6 pt text at most."""
    return 0.42 if count <= VALUES_UP_TO else max(0.115, min(0.42, 7.2 / count))


def _figure(across: int, up: int, widest: float = 20.0) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cell = min(_cell_inches(across), _cell_inches(up))
    width = min(max(2.2, cell * across), widest) + 2.2
    height = max(1.6, cell * up) + 1.6
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _paint(axes: Axes, values: np.ndarray) -> Any:
    from matplotlib import colormaps

    below = bool(np.nanmin(values) < 0) if np.isfinite(values).any() else False
    colours = colormaps["RdBu_r" if below else "viridis"].with_extremes(bad=_UNDEFINED)
    image = axes.imshow(
        np.ma.masked_invalid(values),
        cmap=colours,
        vmin=-1 if below else 0,
        vmax=1,
        origin="lower",
        interpolation="nearest",
        aspect="auto",
    )
    if max(values.shape) <= VALUES_UP_TO:
        _write_values(axes, values, image)
    return image


def _write_values(axes: Axes, values: np.ndarray, image: Any) -> None:
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
        text = f"{value:.2f}" if np.isfinite(value) else "–"
        colour = "black" if light or not np.isfinite(value) else "white"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _label_axis(axes: Axes, which: str, names: Sequence[str], label: str) -> None:
    size = 8 if len(names) <= VALUES_UP_TO else 6
    short = [_shorten(name) for name in names]
    axis = axes.xaxis if which == "x" else axes.yaxis
    turned = which == "x" and max(len(name) for name in short) > 3
    axis.set_ticks(range(len(short)), short, fontsize=size, rotation=90 if turned else 0)
    axis.set_tick_params(length=2)
    axis.set_label_text(label, fontsize=8)


def _label_epochs(axes: Axes, epochs: Sequence[int]) -> None:
    step = max(1, -(-len(epochs) // 20))
    places = range(0, len(epochs), step)
    axes.set_xticks(places, [str(epochs[i]) for i in places], fontsize=8)
    axes.set_xlabel("epoch", fontsize=8)


def _finish(figure: Figure, axes: Axes, image: Any, title: str, caption: str) -> Figure:
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.set_label("CKA", fontsize=8)
    bar.outline.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
    if title:
        axes.set_title(title, fontsize=10)
    if caption:
        figure.supxlabel(caption, fontsize=7, color="#444444")
    return figure


def _with_undefined(caption: str, values: np.ndarray) -> str:
    undefined = int((~np.isfinite(values)).sum())
    note = f"grey: {undefined} undefined" if undefined else ""
    return "; ".join(part for part in (caption, note) if part)


def _joined(model: str, prefix: str) -> str:
    return " ".join(part for part in (model, f"{prefix}.*" if prefix else "") if part)


def _shorten(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"
