"""Checks of a sweep file that need several of its parts at once.

Example: ``method: bayes`` without a metric; a continuous parameter in a grid; parameters tied in
a circle; a condition that depends on itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.canonical import references, resolve_ties, says_where
from mlmodeldev.sweep.grid import MAX_VALUES, count_of
from mlmodeldev.sweep.parameters import GRID, Parameter
from mlmodeldev.sweep.reader import Reader

if TYPE_CHECKING:
    from mlmodeldev.sweep.definition import Definition


def check_consistency(definition: Definition, reader: Reader) -> None:
    """Report what does not fit together in an otherwise readable sweep file."""
    if definition.method == "bayes" and definition.metric is None:
        reader.error(("method",), "bayes needs a 'metric' with a name and a goal")
    if definition.early_terminate and definition.metric is None:
        reader.error(("early_terminate",), "hyperband needs a 'metric' to compare trials by")
    for parameter in definition.parameters:
        message = _where_message(parameter)
        if message is None and definition.method == "grid":
            message = _grid_message(parameter)
        if message is not None:
            reader.report.error(parameter.line, parameter.place, message)
    _check_circles(definition, reader)


def _where_message(parameter: Parameter) -> str | None:
    if says_where(parameter.name) and not parameter.is_constant:
        return "says where a trial runs, not what it is: it can be set to a value, not swept"
    return None


def _grid_message(parameter: Parameter) -> str | None:
    if parameter.distribution not in GRID:
        return f"method grid cannot list {parameter.distribution}: give 'values'"
    if "probabilities" in parameter.fields:
        return "method grid has no use for probabilities, and W&B refuses them there"
    if count_of(parameter) > MAX_VALUES:
        return f"has more than {MAX_VALUES:.0e} values: give 'values', or a larger step 'q'"
    return None


def _check_circles(definition: Definition, reader: Reader) -> None:
    links = {
        p.name: references(p.fields.get("values", p.fields.get("value")))
        for p in definition.parameters
    }
    try:
        resolve_ties(_as_ties(links))
    except UsageError as mistake:
        reader.error(("parameters",), str(mistake))
        return
    for name, rule in definition.conditions.items():
        links[name] = links[name] | rule.names
    try:
        resolve_ties(_as_ties(links))
    except UsageError as mistake:
        circle = str(mistake).partition(": ")[2]
        reader.error(("controller", "conditions"), f"a condition depends on itself: {circle}")


def _as_ties(links: dict[str, set[str]]) -> dict[str, str]:
    return {
        name: "".join(f"${{{other}}}" for other in sorted(others)) for name, others in links.items()
    }
