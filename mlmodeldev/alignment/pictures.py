"""Heat maps of CKA matrices, and of their diagonals through training.

    figure = draw_heatmap(matrix, rows, columns, title="towers")
    save_figure(figure, Path("towers.png"))

The figures are readable in print: names without what all of them begin with, values in the cells
where they fit, one scale of colours from 0 to 1 (-1 where a value is clearly below 0), hatching
where a value is no more than chance would give (`error_marks`), grey for undefined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmodeldev.alignment import error_marks
from mlmodeldev.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VALUES_UP_TO = 16
"""Cells hold their value up to this many rows and columns."""
_LONGEST_NAME = 36
_DPI = 200
_UNDEFINED = "#bdbdbd"


def draw_heatmap(
    matrix: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    caption: str = "",
    row_label: str = "",
    column_label: str = "",
    hatched: np.ndarray | None = None,
    rule: str = "",
    floor: np.ndarray | None = None,
) -> Figure:
    """Draw CKA `matrix` (len(rows), len(columns)); first row at the bottom, as in the papers.

    The common front of the layer names moves to the axis label; `row_label` and `column_label`
    (model names) go before it. `hatched` cells are not above chance by the `rule` that the legend
    names; `floor` decides which values are clearly below 0. Returns a matplotlib `Figure` that no
    global state knows.
    """
    values = np.asarray(matrix, dtype=float)
    figure, axes = _figure(len(columns), len(rows))
    image = _paint(axes, values, floor, hatched)
    if hatched is not None:
        error_marks.legend(figure, rule, hatched)
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
    errors: Mapping[str, Any] | None = None,
    rule: str = "",
) -> Figure:
    """Draw CKA through training: `values` (len(epochs), len(layers)), layers up, epochs across.

    `errors` are as the values, by name (`history.ERRORS`): cells that are not significant are
    hatched, and intervals, where there are any, are bands in a second plot below.
    """
    table = np.asarray(values, dtype=float).T
    marks = {key: np.asarray(one, dtype=float).T for key, one in (errors or {}).items()}
    bands = np.isfinite(marks.get("lower", np.nan)).any()
    figure, axes = _figure(len(epochs), len(layers), widest=6.5, below=2.2 if bands else 0.0)
    prefix, names = common_front(layers)
    cells = marks["significant"] == 0 if rule else None
    image = _paint(axes, table, marks.get("floor"), cells)
    _label_axis(axes, "y", names, _joined("", prefix))
    _label_epochs(axes, epochs)
    if bands:
        error_marks.draw_bands(figure.axes[1], table, marks["lower"], marks["upper"], names)
        _label_epochs(figure.axes[1], epochs)
    if cells is not None:
        error_marks.legend(figure, rule, cells)
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


def _cell_inches(count: int) -> float:
    """Side of a cell: room for a value where values are shown, for a line of 6 pt text at most."""
    return 0.42 if count <= VALUES_UP_TO else max(0.115, min(0.42, 7.2 / count))


def _figure(across: int, up: int, widest: float = 20.0, below: float = 0.0) -> tuple[Figure, Axes]:
    """Return a figure for a heat map; with `below`, inches, it has a second plot of that height."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cell = min(_cell_inches(across), _cell_inches(up))
    width = min(max(2.2, cell * across), widest) + 2.2
    height = max(1.6, cell * up) + 1.6
    figure = Figure(figsize=(width, height + below), layout="constrained")
    FigureCanvasAgg(figure)
    if not below:
        return figure, figure.add_subplot()
    axes, _ = figure.subplots(2, 1, height_ratios=[height, below])
    return figure, axes


def _paint(
    axes: Axes, values: np.ndarray, floor: np.ndarray | None, hatched: np.ndarray | None
) -> Any:
    from matplotlib import colormaps

    below = error_marks.any_clearly_below(values, floor)
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
    if hatched is not None:
        error_marks.hatch(axes, image, hatched)
    if max(values.shape) <= VALUES_UP_TO:
        _write_values(axes, values, image, hatched)
    return image


def _write_values(axes: Axes, values: np.ndarray, image: Any, hatched: np.ndarray | None) -> None:
    light = error_marks.lightness(image) > 0.55
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:.2f}" if np.isfinite(value) else "–"
        colour = "black" if light[row, column] or not np.isfinite(value) else "white"
        written = axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        if hatched is not None and hatched[row, column]:
            error_marks.lift(written, image.cmap(image.norm(value)))


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
    if caption:  # the legend, if there is one, is in the line below
        below = "\n " if figure.legends else ""
        figure.supxlabel(caption + below, fontsize=7, color="#444444")
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
