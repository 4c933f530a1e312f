"""A sweep file as data: the line of every part, its values by type, the mistakes found in it.

`mlmodeldev.sweep.yaml_reader` fills a document, `mlmodeldev.sweep.definition` makes sense of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NoReturn

from mlmodeldev.errors import UsageError, nearest, shown_line

Keys = tuple[str | int, ...]

_ENDLESS = (math.inf, -math.inf)


@dataclass(frozen=True)
class Problem:
    """One mistake in a sweep file."""

    file: str
    line: int
    """Line in the file, counted from 1."""
    key: str
    """Dotted place in the file, such as ``parameters.optimizer.lr.values``; may be empty."""
    severity: Literal["error", "warning"]
    """An error keeps the file from running on some engine; a warning is worth a look."""
    message: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return shown_line(f"{self.file}:{self.line}: {self.severity}: {where}{self.message}")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a mapping, for JSON."""
        return asdict(self)


@dataclass
class Document:
    """A sweep file and the problems found in it so far.

    What reads a value by its type (`choice`, `text`, `count`, `number`) reports a wrong one and
    returns None for it.
    """

    file: str
    source: str = ""
    """The text of the file."""
    data: Any = None
    lines: dict[Keys, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    number_like: dict[Keys, str] = field(default_factory=dict)
    """Values that are text and look like numbers, and how the numbers are written."""

    def line(self, keys: Keys) -> int:
        """Return the line of the nearest part at or above these keys, from 1."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    # --- problems

    def error(self, keys: Keys, message: str, line: int | None = None) -> None:
        """Note a mistake that keeps the file from running; its line is that of the keys."""
        self._note("error", keys, message, line)

    def warning(self, keys: Keys, message: str, line: int | None = None) -> None:
        """Note something that is probably not meant."""
        self._note("warning", keys, message, line)

    def _note(
        self, severity: Literal["error", "warning"], keys: Keys, message: str, line: int | None
    ) -> None:
        line = self.line(keys) if line is None else line
        self.problems.append(Problem(self.file, line, dotted(keys), severity, message))

    @property
    def errors(self) -> list[Problem]:
        """The problems that are errors."""
        return [problem for problem in self.problems if problem.severity == "error"]

    def raise_errors(self) -> None:
        """Raise the first error, if there is one.

        Raises:
            UsageError: with the file, the line, the key, and how many more there are.
        """
        errors = self.errors
        if not errors:
            return
        first = errors[0]
        where = f"{first.key}: " if first.key else ""
        more = len(errors) - 1
        tail = f" (and {more} more: python -m mlmodeldev.sweep check {self.file})" if more else ""
        raise UsageError(f"{first.file}:{first.line}: {where}{first.message}{tail}")

    def refuse(self, line: int, message: str) -> NoReturn:
        """Note a mistake after which nothing more of the file can be checked, and raise it.

        Raises:
            UsageError: always.
        """
        self.error((), message, line)
        self.raise_errors()
        raise AssertionError("unreachable: there is an error")

    # --- values

    def value(self, keys: Keys, default: Any = None) -> Any:
        """Return what stands at these keys; the default if nothing does."""
        node = self.data
        for key in keys:
            inside = isinstance(node, dict) and key in node
            if not inside and not (isinstance(node, list) and key in range(len(node))):
                return default
            node = node[key]
        return node

    def only(self, data: dict[str, Any], keys: Keys, allowed: Collection[str]) -> None:
        """Report every key of the mapping that is not allowed."""
        for key in data:
            if key not in allowed:
                message = f"unknown{nearest(key, allowed)}; allowed: {', '.join(allowed)}"
                self.error((*keys, key), message)

    def section(self, name: str, allowed: Collection[str]) -> dict[str, Any] | None:
        """Return a top-level mapping, its keys checked; None if it is not in the file."""
        data = self.data.get(name)
        if name not in self.data:
            return None
        if not isinstance(data, dict):
            self.error((name,), f"must be a mapping of: {', '.join(allowed)}")
            return None
        self.only(data, (name,), allowed)
        return data

    def choice(self, keys: Keys, allowed: Collection[str], default: str | None = None) -> str:
        """Return one of the allowed words; a missing one is an error, read as ``""``."""
        value = self.value(keys, default)
        if isinstance(value, str) and value in allowed:
            return value
        given = "missing" if value is None else f"{shown(value)} is unknown"
        hint = nearest(str(value), allowed)
        self.error(keys, f"{given}{hint}; allowed: {', '.join(allowed)}")
        return ""

    def text(self, keys: Keys) -> str | None:
        """Return text, or None."""
        value = self.value(keys)
        if value is not None and not isinstance(value, str):
            self.error(keys, f"{shown(value)} must be text")
        return value if isinstance(value, str) else None

    def count(self, keys: Keys) -> int | None:
        """Return an integer of at least 1, or None; 2.0 is taken for 2, as W&B does."""
        value = self.value(keys)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.error(keys, self.no_number(keys, "must be an integer of at least 1"))
            return None
        return value

    def no_number(self, keys: Keys, wanted: str) -> str:
        """Return why a value is no number, and how it is written if it was meant to be one."""
        value = self.value(keys)
        if better := self.number_like.get(keys):
            return f"{value} is text in YAML 1.1, not a number: write {better}"
        return f"{shown(value)} {wanted}"

    def number(self, keys: Keys, default: float | None = None) -> float | None:
        """Return a number, infinities included, or None."""
        value = self.value(keys, default)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # An integer beyond 1e300 may be too large for the floats that it will meet.
        if is_number and (abs(value) <= 1e300 or value in _ENDLESS):
            number: float = value
            return number
        self.error(keys, self.no_number(keys, "must be a number"))
        return None


def dotted(keys: Keys) -> str:
    """Return keys as people write them: ``parameters.lr.values[2]``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def shown(value: Any) -> str:
    """Return a value as Python writes it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
