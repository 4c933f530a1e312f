"""Read ``metrics.csv``: rows as they were logged; importing this is light.

Example::

    read_rows(folder / "metrics.csv")[-1]       # {"epoch": 2.0, "step": 120.0, "val/loss": 0.3}
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

STEP = "trainer/global_step"
"""The axis of W&B's charts: optimizer steps."""

TIME = "time/logged"
"""When a row was written, in seconds since 1970."""


def read_rows(file: Path) -> list[dict[str, float]]:
    """Return the file's whole rows as numbers; ``step`` is one of them."""
    return [{name: float(value) for name, value in row.items()} for row in read_text_rows(file)[1]]


def read_text_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the whole rows, as text; a torn last line is left out."""
    if not file.is_file():
        return [], []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(whole))
    rows = [{k: v for k, v in row.items() if v not in ("", None)} for row in reader]
    return list(reader.fieldnames or []), [row for row in rows if row.get("step", "").isdigit()]
