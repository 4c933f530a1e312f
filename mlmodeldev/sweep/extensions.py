"""What a sweep file says beyond W&B's format, under ``controller``: rules, replicates, a database.

W&B's schema refuses keys that it does not know everywhere but there (`docs/sweeps.md`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.sweep.document import Document, Keys
from mlmodeldev.sweep.expression import Expression
from mlmodeldev.sweep.grid import count_of
from mlmodeldev.sweep.parameters import Parameter

_KEYS = ("type", "constraints", "conditions", "replicates", "storage")
SCHEME = "postgresql"
"""Of the databases that keep a search's rows."""
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
    storage: str | None = None
    """Where a search keeps its rows; None: in a journal in the sweep's folder."""


def storage_problem(url: str) -> str | None:
    """Return what is wrong with an address of a database, without showing it; None: nothing."""
    parts = urlsplit(url)
    name = parts.scheme.partition("+")[0]
    if name in ("sqlite", "file", ""):
        return (
            "a file is what the search's journal is already, with a lock that works on network"
            f" file systems, where SQLite's does not; a database is {SCHEME}://USER@HOST/NAME"
        )
    if name != SCHEME:
        return f"{name!r}: only {SCHEME}://USER@HOST/NAME is"
    if parts.password or any("password" in key.lower() for key, _ in parse_qsl(parts.query)):
        return "holds a password; it belongs into ~/.pgpass or PGPASSWORD, where libpq looks"
    if not parts.path.strip("/"):
        return f"names no database: {SCHEME}://USER@HOST/NAME"
    return None


def parse_extensions(document: Document, parameters: list[Parameter]) -> Extensions:
    """Return what stands under ``controller``; mistakes are noted in the document."""
    data = document.section("controller", _KEYS)
    if data is None:
        return Extensions()
    document.choice(("controller", "type"), ("cloud", "local"))
    names = [parameter.name for parameter in parameters]
    extensions = Extensions(
        _constraints(data.get("constraints"), names, document),
        _conditions(data.get("conditions"), names, document),
        _replicates(data.get("replicates"), parameters, document),
        _storage(document),
    )
    _refuse_rules_on_replicates(extensions, document)
    return extensions


def _expression(text: Any, keys: Keys, names: list[str], document: Document) -> Expression | None:
    try:
        return Expression.parse(text, names)
    except UsageError as error:
        document.error(keys, str(error))
        return None


def _constraints(value: Any, names: list[str], document: Document) -> tuple[Expression, ...]:
    keys: Keys = ("controller", "constraints")
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list):
        document.error(keys, "must be a list of expressions, such as: optimizer.lr < 0.1")
        return ()
    parsed = (_expression(text, (*keys, i), names, document) for i, text in enumerate(texts))
    return tuple(each for each in parsed if each is not None)


def _conditions(value: Any, names: list[str], document: Document) -> dict[str, Expression]:
    keys: Keys = ("controller", "conditions")
    if value is not None and not isinstance(value, dict):
        document.error(keys, "must map a parameter to an expression")
    conditions: dict[str, Expression] = {}
    for name, text in value.items() if isinstance(value, dict) else ():
        parsed = _expression(text, (*keys, name), names, document)
        if name not in names:
            document.error((*keys, name), f"is no parameter here{nearest(name, names)}")
        elif parsed is not None:
            conditions[name] = parsed
    return conditions


def _replicates(value: Any, parameters: list[Parameter], document: Document) -> tuple[str, ...]:
    keys: Keys = ("controller", "replicates")
    names = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        document.error(keys, "must name a parameter, such as training.seed")
        return ()
    by_name = {parameter.name: parameter for parameter in parameters}
    for name in names:
        if name not in by_name:
            document.error(keys, f"{name!r} is no parameter here{nearest(name, by_name)}")
        elif by_name[name].distribution not in _LISTED:
            document.error(keys, f"{name} must list its 'values' to be replicated")
        elif count_of(by_name[name]) > MAX_REPEATS:
            message = f"{name} has more than {MAX_REPEATS} values to repeat each point by"
            document.error(keys, message)
    return tuple(dict.fromkeys(names))


def _storage(document: Document) -> str | None:
    keys: Keys = ("controller", "storage")
    url = document.text(keys)
    if url is not None and (problem := storage_problem(url)):
        document.error(keys, problem)
        return None
    return url


def _refuse_rules_on_replicates(extensions: Extensions, document: Document) -> None:
    why = "is a replicate, which repeats every point alike, so no rule may name it"
    replicates = set(extensions.replicates)
    for name, rule in extensions.conditions.items():
        for repeated in sorted({name, *rule.names} & replicates):
            document.error(("controller", "conditions", name), f"{repeated} {why}")
    for i, rule in enumerate(extensions.constraints):
        for repeated in sorted(rule.names & replicates):
            document.error(("controller", "constraints", i), f"{repeated} {why}")
