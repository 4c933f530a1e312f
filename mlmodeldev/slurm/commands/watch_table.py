"""How ``status --watch`` shows a sweep: as many trials as fit, those that run first.

Example::

    console.print(draw(look, columns=80, lines=24))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm.commands.table import COLOURS, ROWS
from mlmodeldev.slurm.trial_entries import ENDED

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mlmodeldev.slurm.sweep_watch import Look, Row

_ORDER = ("running", "lost", "failed", "interrupted", "queued", "pending", *ENDED, "missing")
_BAR = 8
_FEWEST_ROWS = 3
WIDE, MIDDLE, NARROW = 110, 76, 56
"""Columns of a terminal from which names and bars are shown; rates; values and the time left."""


def draw(look: Look, columns: int, lines: int | None = None) -> RenderableType:
    """Return the sweep as rich draws it.

    Args:
        columns, lines: of the terminal; None: as many lines as it takes, `ROWS` trials at most.
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    below = _below(look)
    taken = 3 + sum(1 + len(text) // columns for text in below)  # title, header, rows left out
    most = ROWS if lines is None else max(_FEWEST_ROWS, lines - 1 - taken)
    rows = _chosen(look, most)
    left_out = len(look.rows) - len(rows)
    title = Table.grid(padding=(0, 1))
    share = _share(look)
    bar: RenderableType = ProgressBar(total=1.0, completed=share, width=max(10, columns // 4))
    # neither a name of the user's nor a reason of Slurm's is markup: Text has none
    title.add_row(Text(look.sweep, "bold", no_wrap=True), bar, Text(f"{100 * share:.0f} %"))
    more = [Text(f"and {left_out} more; status --json has all", "dim")] if left_out else []
    return Group(title, _table(look, rows, columns), *more, *map(Text, below))


def _table(look: Look, rows: Sequence[Row], columns: int) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    # no_wrap: an identity in two pieces can't be copied; the last column has what room is left
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=True)
    cells: list[Callable[[Row], RenderableType]] = []

    def add(name: str, cell: Callable[[Row], RenderableType], **options: Any) -> None:
        table.add_column(name, no_wrap=True, **options)
        cells.append(cell)

    add("trial", lambda row: row.id)
    if columns >= WIDE:
        add("name", lambda row: Text(row.name), max_width=columns // 4)
    add("state", lambda row: Text(row.state, COLOURS.get(row.state, "default")))
    if columns >= WIDE:
        add("", lambda row: ProgressBar(row.epochs or 1, row.epoch or 0, width=_BAR))
    add("epoch", lambda row: _slash(row.epoch, row.epochs))
    if columns >= NARROW:
        add(look.metric.rpartition("/")[2][:_BAR], lambda row: _number(row.value, ".4f"))
    if columns >= MIDDLE:
        add("samples/s", _rate)
        add("epochs/h", lambda row: _number(row.epochs_an_hour, ",.0f", 10))
    if columns >= NARROW:
        add("left", lambda row: duration(row.seconds_left))
    add("node, or waits for", lambda row: Text(_place(row)), ratio=1, overflow="ellipsis")
    for row in rows:
        table.add_row(*(cell(row) for cell in cells))
    return table


def duration(seconds: float | None) -> str:
    """Return a time in its largest unit; empty: not to be foretold.

    >>> duration(45), duration(600), duration(8000)
    ('45 s', '10 min', '2.2 h')
    """
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def _below(look: Look) -> list[str]:
    """Return the lines below the table, without what there is nothing to say of."""
    counts = ", ".join(f"{count} {state}" for state, count in look.states.most_common())
    rate = sum(row.epochs_an_hour or 0 for row in look.rows)
    parts = [f"{len(look.rows)} trials: {counts or 'none'}"]
    parts += [f"{_number(rate, ',.0f', 10)} epochs an hour"] if rate else []
    parts += [f"{duration(look.seconds_left)} to the end"] if look.seconds_left else []
    lines = ["; ".join(parts)]
    if look.waits:
        waits = (f"{count} for {text}" for text, count in look.waits.most_common())
        lines.append(f"waiting: {', '.join(waits)}")
    if look.undrawn is not None:
        workers = ", ".join(f"{count} {text}" for text, count in look.workers.most_common())
        more = f"; workers: {workers}" if workers else ""
        lines.append(f"search: {look.undrawn} trials are still to be drawn{more}")
    return [*lines, *([look.complaint] if look.complaint else [])]


def _chosen(look: Look, most: int) -> list[Row]:
    """Return the rows that are shown: what goes on, what went wrong, the best, the rest."""
    sign = -1 if look.goal == "maximize" else 1
    places = {state: place for place, state in enumerate(_ORDER)} | dict.fromkeys(ENDED, 6)

    def place(row: Row) -> tuple[int, bool, float]:
        is_ranked = row.state in ENDED and row.value is not None
        return places.get(row.state, 5), not is_ranked, sign * (row.value or 0) * is_ranked

    return sorted(look.rows, key=place)[:most]


def _share(look: Look) -> float:
    """Return how much of the sweep is done: epochs of what was begun, the rest not at all."""
    ended = {*ENDED, "failed"}
    parts = [
        1.0 if row.state in ended else (row.epoch or 0) / row.epochs if row.epochs else 0.0
        for row in look.rows
    ]
    return sum(parts) / max(1, len(parts) + (look.undrawn or 0))


def _place(row: Row) -> str:
    if row.state == "failed":
        return row.cause or row.waits
    place = row.waits or row.node
    return f"{place}; {row.cause}" if row.cause else place


def _rate(row: Row) -> str:
    if row.samples is None and row.steps is not None:
        return f"{_number(row.steps, ',.0f', 10)} steps"
    return _number(row.samples, ",.0f", 10)


def _number(value: float | None, form: str, exact_below: float = 0) -> str:
    if value is None:
        return ""
    return f"{value:.2g}" if abs(value) < exact_below else format(value, form)


def _slash(part: int | None, whole: int | None) -> str:
    if part is None:
        return ""
    return str(part) if whole is None else f"{part}/{whole}"
