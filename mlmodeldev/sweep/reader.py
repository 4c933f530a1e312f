"""Checks of single values of a sweep file, each with one clear message.

Example::

    reader = Reader(document, report)
    reader.choice(data.get("method"), ("method",), ("grid", "random", "bayes"))
    reader.count(data.get("run_cap"), ("run_cap",))
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from mlmodeldev.errors import nearest
from mlmodeldev.sweep.document import Document, Keys, dotted
from mlmodeldev.sweep.problem import Report, shown

_ENDLESS = (math.inf, -math.inf)


class Reader:
    """Reads values out of a document; a wrong one is reported and read as None."""

    def __init__(self, document: Document, report: Report) -> None:
        self.document = document
        self.report = report

    def error(self, keys: Keys, message: str) -> None:
        """Report a mistake at these keys."""
        self.report.error(self.document.line(keys), dotted(keys), message)

    def only(self, data: dict[str, Any], keys: Keys, allowed: Collection[str]) -> None:
        """Report every key of the mapping that is not allowed."""
        for key in data:
            if key not in allowed:
                message = f"unknown{nearest(key, allowed)}; allowed: {', '.join(allowed)}"
                self.error((*keys, key), message)

    def choice(self, value: Any, keys: Keys, allowed: Collection[str]) -> str | None:
        """Read one of the allowed words; a missing one is an error."""
        if isinstance(value, str) and value in allowed:
            return value
        given = "missing" if value is None else f"{shown(value)} is unknown"
        self.error(keys, f"{given}{nearest(str(value), allowed)}; allowed: {', '.join(allowed)}")
        return None

    def text(self, value: Any, keys: Keys) -> str | None:
        """Read text, or None."""
        if value is not None and not isinstance(value, str):
            self.error(keys, f"{shown(value)} must be text")
        return value if isinstance(value, str) else None

    def count(self, value: Any, keys: Keys) -> int | None:
        """Read an integer of at least 1, or None."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.error(keys, f"{shown(value)} must be an integer of at least 1")
            return None
        return value

    def number(self, value: Any, keys: Keys) -> float | None:
        """Read a number, infinities included, or None."""
        if value is None:
            return None
        # An integer beyond 1e300 may be too large for the floats that it will meet.
        small = isinstance(value, int | float) and (abs(value) <= 1e300 or value in _ENDLESS)
        if isinstance(value, bool) or not small:
            self.error(keys, f"{shown(value)} must be a number")
            return None
        return value

    def mapping(self, value: Any, keys: Keys, allowed: Collection[str]) -> dict[str, Any] | None:
        """Read a mapping with allowed keys only; None if the key is not in the file."""
        if value is None and dotted(keys) not in self.document.data:
            return None
        if not isinstance(value, dict):
            self.error(keys, f"must be a mapping of: {', '.join(allowed)}")
            return None
        self.only(value, keys, allowed)
        return value
