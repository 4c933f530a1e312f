"""Checks of single values of a sweep file, each with one clear message.

Example::

    reader = Reader(document, report)
    reader.choice(data.get("method"), ("method",), ("grid", "random", "bayes"))
    reader.count(data.get("run_cap"), ("run_cap",))
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.sweep.document import Document, Keys, Report, dotted, shown
from mlmodeldev.sweep.expression import Expression
from mlmodeldev.sweep.grid import count_of
from mlmodeldev.sweep.parameters import Parameter

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


_KEYS = ("type", "constraints", "conditions", "replicates")
MAX_REPEATS = 10_000
"""A replicated parameter has at most so many values."""
_LISTED = ("categorical", "constant", "int_uniform")


@dataclass(frozen=True)
class Extensions:
    """Our part of a sweep file; empty where the file has none."""

    constraints: tuple[Expression, ...] = ()
    """A point is a trial only where all of these hold."""
    conditions: dict[str, Expression] = field(default_factory=dict)
    """A parameter is set only where its condition holds."""
    replicates: tuple[str, ...] = ()
    """Parameters whose values repeat every point, such as ``training.seed``."""


def parse_extensions(reader: Reader, parameters: list[Parameter]) -> Extensions:
    """Return what stands under ``controller``; mistakes go into the reader's report."""
    data = reader.mapping(reader.document.data.get("controller"), ("controller",), _KEYS)
    if data is None:
        return Extensions()
    reader.choice(data.get("type"), ("controller", "type"), ("cloud", "local"))
    names = [parameter.name for parameter in parameters]
    extensions = Extensions(
        _constraints(data.get("constraints"), names, reader),
        _conditions(data.get("conditions"), names, reader),
        _replicates(data.get("replicates"), parameters, reader),
    )
    _refuse_rules_on_replicates(extensions, reader)
    return extensions


def _expression(text: Any, keys: Keys, names: list[str], reader: Reader) -> Expression | None:
    try:
        return Expression.parse(text, names)
    except UsageError as error:
        reader.error(keys, str(error))
        return None


def _constraints(value: Any, names: list[str], reader: Reader) -> tuple[Expression, ...]:
    keys: Keys = ("controller", "constraints")
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list):
        reader.error(keys, "must be a list of expressions, such as: optimizer.lr < 0.1")
        return ()
    parsed = (_expression(text, (*keys, i), names, reader) for i, text in enumerate(texts))
    return tuple(each for each in parsed if each is not None)


def _conditions(value: Any, names: list[str], reader: Reader) -> dict[str, Expression]:
    keys: Keys = ("controller", "conditions")
    if value is not None and not isinstance(value, dict):
        reader.error(keys, "must map a parameter to an expression")
    conditions: dict[str, Expression] = {}
    for name, text in value.items() if isinstance(value, dict) else ():
        parsed = _expression(text, (*keys, name), names, reader)
        if name not in names:
            reader.error((*keys, name), f"is no parameter here{nearest(name, names)}")
        elif parsed is not None:
            conditions[name] = parsed
    return conditions


def _replicates(value: Any, parameters: list[Parameter], reader: Reader) -> tuple[str, ...]:
    keys: Keys = ("controller", "replicates")
    names = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        reader.error(keys, "must name a parameter, such as training.seed")
        return ()
    listed = {parameter.name: parameter for parameter in parameters}
    for name in names:
        if name not in listed:
            reader.error(keys, f"{name!r} is no parameter here{nearest(name, listed)}")
        elif listed[name].distribution not in _LISTED:
            reader.error(keys, f"{name} must list its 'values' to be replicated")
        elif count_of(listed[name]) > MAX_REPEATS:
            reader.error(keys, f"{name} has more than {MAX_REPEATS} values to repeat each point by")
    return tuple(dict.fromkeys(names))


def _refuse_rules_on_replicates(extensions: Extensions, reader: Reader) -> None:
    why = "is a replicate, which repeats every point alike, so no rule may name it"
    for name, rule in extensions.conditions.items():
        for repeated in sorted({name, *rule.names} & set(extensions.replicates)):
            reader.error(("controller", "conditions", name), f"{repeated} {why}")
    for i, rule in enumerate(extensions.constraints):
        for repeated in sorted(rule.names & set(extensions.replicates)):
            reader.error(("controller", "constraints", i), f"{repeated} {why}")
