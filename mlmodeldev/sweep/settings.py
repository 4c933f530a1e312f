"""Check a sweep's keys, values and metric against what the trainer knows.

Example: ``optimizer.lrr`` is no setting; ``processing.batch_size: 0.5`` is no integer;
``val/acc`` is never logged.

What the trainer knows is passed in, either as a mapping of dotted keys to types (or to default
values), or as a function that returns what is wrong with a key and a value, or None.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.sweep.definition import Definition
from mlmodeldev.sweep.distributions import quantile
from mlmodeldev.sweep.parameters import Parameter
from mlmodeldev.sweep.problem import Report, shown
from mlmodeldev.sweep.source import Document

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def check_settings(
    definition: Definition,
    known: Mapping[str, Any] | Callable[[str, Any], str | None],
    report: Report,
) -> None:
    """Report keys that are no settings, and values that a setting's type refuses."""
    ask = known if callable(known) else _asking(known)
    for parameter in definition.parameters:
        for value in _sample(parameter):
            if isinstance(value, str) and "${" in value:
                continue
            message = ask(parameter.name, value)
            if message is not None:
                report.error(parameter.line, parameter.place, message)
                break


def _sample(parameter: Parameter) -> Iterator[Any]:
    """Yield all listed values, or some of a distribution's."""
    if "values" in parameter.fields:
        yield from parameter.fields["values"]
        return
    for u in (0.5, 0.001, 0.999):
        try:
            yield quantile(parameter, u)
        except UsageError:
            continue


def _asking(known: Mapping[str, Any]) -> Callable[[str, Any], str | None]:
    def ask(key: str, value: Any) -> str | None:
        if key not in known:
            return f"{key!r} is no setting of the trainer{nearest(key, known)}"
        return _refused(key, value, known[key])

    return ask


def _refused(key: str, value: Any, wanted: Any) -> str | None:
    kind = wanted if isinstance(wanted, type) else type(wanted)
    if wanted is None or kind not in _WORDS:
        return None
    fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if kind is not bool and isinstance(value, bool):
        fits = False
    return None if fits else f"{shown(value)} is refused: {key} takes {_WORDS[kind]}"


def check_metric(
    document: Document, definition: Definition, known: Collection[str], report: Report
) -> None:
    """Report a metric that the trainer does not log: an error if it is a near miss."""
    if definition.metric is None or definition.metric.name in known:
        return
    name = definition.metric.name
    line, key = document.line(("metric", "name")), "metric.name"
    message = f"{name!r} is not among what the trainer logs: {', '.join(sorted(known))}"
    if difflib.get_close_matches(name, list(known), n=1, cutoff=0.7):
        report.error(line, key, message + nearest(name, known))
    else:
        report.warning(line, key, f"{message}; a search or early stopping needs it logged")
