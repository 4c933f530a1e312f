"""What a sweep file says beyond W&B: constraints, conditions and replicates.

Example::

    controller:
      type: cloud                                  # W&B's own key
      constraints: [optimizer.lr * processing.batch_size < 1]
      conditions: {optimizer.momentum: optimizer.name == "sgd"}
      replicates: training.seed

They stand under ``controller`` because that is the one place where W&B's schema (`sweeps` 0.3.0)
allows unknown keys: a key of ours at the top, or beside a parameter's values, is refused there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.sweep.document import Keys
from mlmodeldev.sweep.expression import Expression
from mlmodeldev.sweep.grid import count_of
from mlmodeldev.sweep.parameters import Parameter
from mlmodeldev.sweep.reader import Reader

_KEYS = ("type", "constraints", "conditions", "replicates")
MAX_REPEATS = 10_000
"""A replicated parameter has at most so many values."""
_LISTED = ("categorical", "constant", "int_uniform")


@dataclass(frozen=True)
class Additions:
    """Our part of a sweep file; empty where the file has none."""

    constraints: tuple[Expression, ...] = ()
    """A point is a trial only where all of these hold."""
    conditions: dict[str, Expression] = field(default_factory=dict)
    """A parameter is set only where its condition holds."""
    replicates: tuple[str, ...] = ()
    """Parameters whose values repeat every point, such as ``training.seed``."""


def parse_additions(reader: Reader, parameters: list[Parameter]) -> Additions:
    """Return what stands under ``controller``; mistakes go into the reader's report."""
    data = reader.mapping(reader.document.data.get("controller"), ("controller",), _KEYS)
    if data is None:
        return Additions()
    reader.choice(data.get("type"), ("controller", "type"), ("cloud", "local"))
    names = [parameter.name for parameter in parameters]
    additions = Additions(
        _constraints(data.get("constraints"), names, reader),
        _conditions(data.get("conditions"), names, reader),
        _replicates(data.get("replicates"), parameters, reader),
    )
    _refuse_rules_on_replicates(additions, reader)
    return additions


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


def _refuse_rules_on_replicates(additions: Additions, reader: Reader) -> None:
    why = "is a replicate, which repeats every point alike, so no rule may name it"
    for name, rule in additions.conditions.items():
        for repeated in sorted({name, *rule.names} & set(additions.replicates)):
            reader.error(("controller", "conditions", name), f"{repeated} {why}")
    for i, rule in enumerate(additions.constraints):
        for repeated in sorted(rule.names & set(additions.replicates)):
            reader.error(("controller", "constraints", i), f"{repeated} {why}")
