"""Drawings of Plotly's, as ClearML's page shows them, without Plotly: tables and histograms.

Example::

    table_plot("val/samples", ["text", "label"], [["a dog", 3]])
    histogram_plot("weights/head", [0.1, 0.4, 0.2])
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

MOST_CELLS = 20_000
"""Of a table; one drawing of ClearML's has to fit into one request."""


def table_plot(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table as JSON; of one that is too long, the first rows."""
    kept = rows[: max(1, MOST_CELLS // max(1, len(columns)))]
    cells = [[_cell(row[place]) for row in kept] for place in range(len(columns))]
    table = {"type": "table", "header": {"values": [*columns]}, "cells": {"values": cells}}
    return _plot(name, table, {})


def histogram_plot(name: str, values: Any, bins: int = 64) -> str:
    """Return a histogram as JSON.

    Args:
        name: its title.
        values: array, tensor or list; those that are not finite are left out.
        bins: bars.
    """
    import numpy as np

    taken = values.detach().cpu() if hasattr(values, "detach") else values
    numbers = np.asarray(taken, dtype=float).ravel()
    counts, edges = np.histogram(numbers[np.isfinite(numbers)], bins=bins)
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    bars = {"type": "bar", "x": middles, "y": counts.tolist(), "name": name}
    return _plot(name, bars, {"bargap": 0})


def _plot(name: str, drawing: dict[str, Any], layout: dict[str, Any]) -> str:
    return json.dumps({"data": [drawing], "layout": {"title": name, **layout}})


def _cell(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)
