"""Draw the library's rooms and the imports between them: python tools/architecture.py [--check]

Rooms and their order come from the contract in pyproject.toml, arrows from the code's imports.
Writes docs/images/architecture.svg, and exits with 1 if an arrow runs up.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
PACKAGE = "mlmodeldev"
WHAT = {
    "cli": "one command",
    "template": "new projects: init, update",
    "slurm": "query, plan, submit, job, agent, bridge",
    "doctor": "checks, each with its mend",
    "testing": "tests for the user's own classes",
    "training": "ranks, session, optimizer, Trainer",
    "callbacks": "one subject a file",
    "alignment": "CKA: maths, capture, figures",
    "tracking": "csv, W&B, TensorBoard",
    "sweep": "definition, space, search, results",
    "data": "exact loader, cached arrays",
    "trial": "folder, record, signals, pool",
    "settings": "schema, compose, identity",
    "fetch": "download, verify, unpack",
    "secrets": "keys: found, masked, refused",
}


COLUMNS = {
    "cli": 0.3, "template": 0.85, "slurm": 0.3, "doctor": 0.6, "testing": 0.9,
    "training": 0.5,
    "callbacks": 0.25, "alignment": 0.75, "tracking": 0.2, "sweep": 0.45, "data": 0.75,
    "trial": 0.3, "settings": 0.5, "fetch": 0.8, "secrets": 0.68,
}  # fmt: skip
"""Where in its row a room is drawn, so that few arrows pass behind a box."""
PRIMITIVES = {"errors", "project", "atomic", "synced", "lease", "machine", "output"}


def rooms() -> list[list[str]]:
    """Return the layers, the highest first; a layer holds rooms that stand side by side."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    layers = tool["importlinter"]["contracts"][0]["layers"]
    return [
        [name.strip("() ").removeprefix(f"{PACKAGE}.") for name in layer.split(":")]
        for layer in layers
    ]


def arrows() -> Counter[tuple[str, str]]:
    """Return how many imports lead from one room to another, by the code's own statements."""
    import grimp

    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    counted: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = room_of(module), room_of(imported)
            if pair[0] != pair[1] and all(pair):
                counted[pair] += 1
    return counted


def room_of(module: str) -> str:
    """Return the room that a module lies in; an empty text for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def upward(layers: list[list[str]], counted: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the arrows that run up."""
    height = {room: number for number, layer in enumerate(layers) for room in layer}
    return [
        (low, high)
        for low, high in counted
        if low in height and high in height and height[high] < height[low]
    ]


def essential(counted: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the arrows that no chain of others stands for, and that lead to no primitive."""
    pairs = {pair for pair in counted if not PRIMITIVES & {*pair}}

    def reaches(room: str, goal: str, seen: frozenset[str]) -> bool:
        steps = {b for a, b in pairs if a == room and b not in seen and (a, b) != (room, goal)}
        return goal in steps or any(reaches(b, goal, seen | {b}) for b in steps)

    def implied(room: str, goal: str) -> bool:
        between = {b for a, b in pairs if a == room} - {goal}
        return any(reaches(b, goal, frozenset({room, b})) or (b, goal) in pairs for b in between)

    return sorted(pair for pair in pairs if not implied(*pair))


def described(counted: Counter[tuple[str, str]]) -> str:
    """Return the essential arrows as text; the picture carries it, so that it can be compared."""
    return "; ".join(f"{room} imports {other}" for room, other in essential(counted))


def draw(layers: list[list[str]], counted: Counter[tuple[str, str]], file: Path) -> None:
    """Draw the rooms as boxes, the highest on top, and the essential imports between them."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = PACKAGE  # the same picture from the same imports
    from matplotlib import pyplot as plt

    shown = [layer for layer in layers if not PRIMITIVES & {*layer}]
    # at the size and scale in which it is saved: arrows end at the boxes as they were drawn before
    figure = plt.figure(figsize=(10, 0.95 * len(shown)), dpi=72)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.03, 1.05)
    axes.set_ylim(-len(shown) - 0.6, 0.5)
    axes.axis("off")
    places = {
        room: (COLUMNS.get(room, 0.5), -float(number))
        for number, layer in enumerate(shown)
        for room in layer
    }
    boxes = {
        room: _box(axes, x, y, f"{room}\n{WHAT.get(room, '')}") for room, (x, y) in places.items()
    }
    figure.canvas.draw()  # boxes have their sizes from here on, and arrows end at them
    for begin, end in essential(counted):
        if begin in places and end in places:
            _arrow(axes, (places[begin], boxes[begin]), (places[end], boxes[end]))
    base = ", ".join(sorted(PRIMITIVES))
    _box(axes, 0.5, -len(shown) - 0.1, f"{base}\nused by all: one of each kind", "#e3e8ee")
    figure.savefig(
        file,
        format="svg",
        metadata={"Date": None, "Description": described(counted)},
    )
    plt.close(figure)


def _box(axes: Any, x: float, y: float, text: str, colour: str = "#f3f6fa") -> Any:
    style = {"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": "#35527a"}
    return axes.text(x, y, text, ha="center", va="center", fontsize=8.5, bbox=style)


def _arrow(axes: Any, first: tuple[Any, Any], second: tuple[Any, Any]) -> None:
    """Draw an arrow; one that passes a layer in its own column goes round the boxes between."""
    (begin, box), (end, other) = first, second
    far = abs(begin[1] - end[1]) > 1 and begin[0] == end[0]
    style = {
        "arrowstyle": "-|>",
        "color": "#35527a",
        "linewidth": 1.2,
        "connectionstyle": f"arc3,rad={0.45 if far else 0.0}",
        "patchA": box.get_bbox_patch(),
        "patchB": other.get_bbox_patch(),
        "shrinkA": 0,
        "shrinkB": 1,
    }
    axes.annotate("", xy=end, xytext=begin, arrowprops=style, zorder=1)  # behind the boxes


def main() -> int:
    """Draw, or check that the picture is what the code says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python tools/architecture.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="draw nothing; only the arrows")
    check = parser.parse_args().check
    layers, counted = rooms(), arrows()
    wrong = upward(layers, counted)
    stale = f">{described(counted)}<" not in PICTURE.read_text() if PICTURE.is_file() else True
    for room, other in wrong:
        print(f"{PACKAGE}.{room} imports {PACKAGE}.{other}, which is above it", file=sys.stderr)
    if check and stale:
        print(f"{PICTURE.relative_to(ROOT)}: is not what the code imports", file=sys.stderr)
    if not check:
        draw(layers, counted, PICTURE)
        print(PICTURE.relative_to(ROOT))
    return int(bool(wrong) or (check and stale))


if __name__ == "__main__":
    sys.exit(main())
