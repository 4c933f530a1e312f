"""What the pictures show of errors: hatching where chance would do, intervals through training.

    hatch(axes, image, ~significant)              # on the cells of a heat map
    legend(figure, "2 x the noise floor", cells)  # what is hatched
    draw_bands(axes, values, lower, upper, names)

Hatching leaves colours and numbers as they are, and stays readable in print without colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLEARLY_BELOW = 0.05
"""Nearer to 0 than a twentieth of the scale a negative value looks like 0 and is drawn so: colours
for values below 0 leave half as many for those above."""
MOST_LINES = 8
"""More lines in one plot can't be told apart."""
_HATCH = "////"
_DARK, _LIGHT = "#4d4d4d", "#d9d9d9"


def any_clearly_below(values: np.ndarray, floor: np.ndarray | None) -> bool:
    """Whether a value is below 0 by more than chance would give, and more than can't be seen.

    The lowest of m values of chance lies about √(2 ln m) noise floors below 0.
    """
    with np.errstate(invalid="ignore"):
        below = values < -CLEARLY_BELOW
        if floor is not None:
            floors = max(2.0, (2 * np.log(max(values.size, 1))) ** 0.5)
            below &= ~(values >= -floors * floor)  # a NaN floor says nothing
    return bool(below.any())


def hatch(axes: Axes, image: Any, cells: np.ndarray) -> None:
    """Hatch `cells` (rows, columns) of a heat map: dark lines on light colours, light on dark."""
    from matplotlib.collections import PolyCollection

    light = lightness(image) > 0.55
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    for chosen, colour in ((cells & light, _DARK), (cells & ~light, _LIGHT)):
        places = np.argwhere(chosen)[:, ::-1]
        if not len(places):
            continue
        marks = PolyCollection(
            places[:, None] + corners, facecolors="none", edgecolors=colour, linewidths=0
        )
        marks.set_hatch(_HATCH)
        marks.set_hatch_linewidth(0.4)
        marks.set_gid("not significant")
        axes.add_collection(marks, autolim=False)


def lift(text: Any, colour: Any) -> None:
    """Keep the hatching off a number: it gets a rim of its cell's colour."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.2, foreground=colour)])


def lightness(image: Any) -> np.ndarray:
    """Return how light each cell of a heat map is, from 0 to 1; NaN cells as they are drawn."""
    colours = image.cmap(image.norm(image.get_array()))
    weights = np.array([0.299, 0.587, 0.114])
    result: np.ndarray = colours[..., :3] @ weights
    return result


def legend(figure: Figure, rule: str, cells: np.ndarray) -> None:
    """Say below the picture what is hatched, and how many cells are."""
    from matplotlib.patches import Patch

    mark = Patch(facecolor="white", edgecolor=_DARK, hatch=_HATCH, linewidth=0.4)
    mark.set_hatch_linewidth(0.4)
    count = int(cells.sum())
    text = f"not above {rule}: {count} cell{'' if count == 1 else 's'}"
    figure.legend(
        handles=[mark],
        labels=[text],
        loc="outside lower center",
        fontsize=7,
        labelcolor="#444444",
        frameon=False,
        borderaxespad=0.2,
    )


def lines_of(count: int) -> list[int]:
    """Return which of `count` layers get a line: all, or some evenly spaced with both ends."""
    some = np.linspace(0, count - 1, min(count, MOST_LINES)).round().astype(int)
    return [int(one) for one in some]


def draw_bands(
    axes: Axes,
    values: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    names: Sequence[str],
) -> None:
    """Draw lines with 95 % bands: arrays (layers, epochs), the first layer darkest."""
    from matplotlib import colormaps

    chosen = lines_of(len(names))
    places = np.arange(values.shape[1])
    for i in chosen:
        colour = colormaps["viridis"](0.88 * i / max(1, len(names) - 1))
        axes.fill_between(places, lower[i], upper[i], color=colour, alpha=0.22, linewidth=0)
        axes.plot(places, values[i], color=colour, linewidth=1.1, marker=".", markersize=3)
        axes.lines[-1].set_label(names[i])
    axes.set_ylabel("CKA, 95 % interval", fontsize=8)
    axes.tick_params(labelsize=7, length=2)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    shown = [names[i] for i in chosen]
    note = f"{len(chosen)} of {len(names)} layers" if len(chosen) < len(names) else None
    axes.legend(
        fontsize=6,
        frameon=False,
        ncols=max(1, min(4, 72 // (max(map(len, shown)) + 6))),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.22),
        title=note,
        title_fontsize=6,
    )
