"""A benchmark's outcome: a table of figures, and the goals that they met or missed.

Example::

    table = Table("Step time", ["loop", "ms a step"], note="medians of 20 epochs")
    table.add("plain", f"{plain:.1f}")
    table.goals.append(Goal("step time", value=ours / plain, limit=1.05))
    print(table.text())
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Goal:
    """A figure that must not be above its limit.

    Attributes:
        name: what is measured.
        value: what came out.
        limit: the largest value that passes.
        unit: written after both; ``x`` for ratios.
    """

    name: str
    value: float
    limit: float
    unit: str = "×"

    @property
    def met(self) -> bool:
        """Whether the value is within the limit (a value that is no number is not)."""
        return self.value <= self.limit

    def text(self) -> str:
        """Return one line of Markdown."""
        verdict = "met" if self.met else "**missed**"
        value, limit = f"{self.value:.2f}{self.unit}", f"{self.limit:g}{self.unit}"
        return f"Goal {verdict}: {self.name} {value}, at most {limit}."


@dataclass
class Table:
    """What one benchmark has to say; rendered, never typed.

    Attributes:
        title: heading on the page.
        columns: heads of the columns.
        rows: cells as text, each row as long as ``columns``.
        note: how it was measured.
        goals: limits that the figures are held against.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""
    goals: list[Goal] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row.

        Raises:
            ValueError: it is not as long as ``columns``.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"{self.title}: {len(cells)} cells for {len(self.columns)} columns")
        self.rows.append([str(cell) for cell in cells])

    @property
    def met(self) -> bool:
        """Whether all goals are met."""
        return all(goal.met for goal in self.goals)

    def text(self) -> str:
        """Return heading, note, table and goals in Markdown."""
        parts = [f"## {self.title}", self.note, self._grid(), *(g.text() for g in self.goals)]
        return "\n\n".join(part for part in parts if part)

    def _grid(self) -> str:
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [self.columns, ["-" * width for width in widths], *self.rows]
        return "\n".join(
            "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
            for line in lines
        )
