"""Hold a sweep's keys and values against the trainer's settings.

Example::

    check_settings(document, definition, {"optimizer.lr": float})
    document.errors       # sweep.yaml:9: parameters.optimizer.lrr: no setting of the trainer; ...
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.settings.overrides import to_overrides
from mlmodeldev.sweep.definition import Definition
from mlmodeldev.sweep.distributions import quantile
from mlmodeldev.sweep.document import Document, shown
from mlmodeldev.sweep.loading import Sweep
from mlmodeldev.sweep.parameters import Parameter

Refusal = Callable[[str, Any, Sequence[str]], str | None]
"""Takes a key, a value and the overrides that choose files, such as ``model=text_classifier``;
returns what is wrong with the value there, or None."""

TrainerSettings = Mapping[str, Any] | Refusal
"""The trainer's settings: types or default values by dotted key, or a function that judges one."""

Unset = Callable[[Sequence[str]], Mapping[str, str]]
"""Takes overrides; returns the settings that are mandatory and that they leave without a value,
each with the line that says so."""

MAX_POINTS = 300
"""So many points of a sweep are looked at for the choices that stand beside a key."""

CHOICE = re.compile(r"[^.]+|callbacks\.[^.]+|.+\._target_")
"""Keys on whose values it depends which other keys there are."""

_TYPES = {bool: "true or false", int: "an integer", float: "a number", str: "text"}

MANY = 100
"""Of more parameters than this, values are looked at together."""
MOST_MISTAKES = 50
"""So many mistakes of settings are listed."""
_NONE = object()


def points(definition: Definition) -> Iterator[dict[str, Any]]:
    """Return the points of a sweep: of a grid those listed, else draws."""
    space = Sweep(definition).space
    return space.walk() if definition.method == "grid" else space.draw()


def check_settings(document: Document, definition: Definition, settings: TrainerSettings) -> None:
    """Report keys that are no settings, and values that a setting's type refuses."""
    refusal = settings if callable(settings) else _refusal_of(settings)
    choices = _choices_beside(definition)
    suspects = list(definition.parameters)
    if len(suspects) > MANY and callable(settings):
        suspects = _suspects(suspects, refusal, choices)
    mistakes = 0
    for parameter in suspects:
        messages = _refusals(parameter, refusal, choices.get(parameter.name, [()]))
        if (message := next(messages, None)) is not None:
            document.error(parameter.keys, message)
            mistakes += 1
        if mistakes == MOST_MISTAKES:
            return


def check_mandatory(document: Document, definition: Definition, unset: Unset) -> None:
    """Report a setting that is mandatory (``???``), and that some trial has no value for."""
    look = functools.cache(lambda *overrides: _lines(unset, overrides))
    groups = {p.name: p for p in definition.parameters if CHOICE.fullmatch(p.name)}
    alone = [{}, *({name: v} for name, p in groups.items() for v in _sample(p))]
    if not any(look(*to_overrides(choice)) for choice in alone):
        return  # as nearly always, and points of thousands of parameters take their time
    differ = groups or definition.conditions  # else all trials set the same settings
    for point in itertools.islice(points(definition), MAX_POINTS if differ else 1):
        chosen = to_overrides({name: point[name] for name in groups if name in point})
        above = [f"{key}." for key in look(*chosen)]
        given = {n: v for n, v in point.items() if any(key.startswith(f"{n}.") for key in above)}
        own = to_overrides({name: value for name, value in given.items() if name not in groups})
        if line := next(iter(look(*chosen, *own).values()), ""):
            beside = f" [with {' '.join(chosen)}]" if chosen else ""
            document.error(("parameters",), f"{line}{beside}")
            return


def _lines(unset: Unset, overrides: Sequence[str]) -> Mapping[str, str]:
    try:
        return unset(overrides)
    except UsageError:
        return {}  # which is reported with the value that it comes from


def _suspects(
    parameters: Sequence[Parameter],
    refusal: Refusal,
    choices: Mapping[str, Sequence[tuple[str, ...]]],
) -> list[Parameter]:
    """Return the parameters that are to be looked at one by one.

    The trainer's settings take a hundredth of a second to be composed, for one value or for a
    thousand: values of different parameters that are taken together are taken.
    """
    alone = [each for each in parameters if each.name in choices]
    many = [each for each in parameters if each.name not in choices]
    suspected = {each.name for each in alone}
    for row in itertools.zip_longest(*(_sample(each) for each in many), fillvalue=_NONE):
        values = {
            each.name: value
            for each, value in zip(many, row, strict=True)
            if value is not _NONE and not (isinstance(value, str) and "${" in value)
        }
        suspected |= set(itertools.islice(_refused(list(values.items()), refusal), MOST_MISTAKES))
        if len(suspected) >= MOST_MISTAKES:
            break
    return [each for each in parameters if each.name in suspected]


def _refused(values: Sequence[tuple[str, Any]], refusal: Refusal) -> Iterator[str]:
    """Yield the keys whose values are not taken, found by halving."""
    if not values or _are_taken(values, refusal):
        return
    if len(values) == 1:
        yield values[0][0]
        return
    half = len(values) // 2
    yield from _refused(values[:half], refusal)
    yield from _refused(values[half:], refusal)


def _are_taken(values: Sequence[tuple[str, Any]], refusal: Refusal) -> bool:
    *others, (key, value) = values
    try:
        return refusal(key, value, to_overrides(dict(others))) is None
    except UsageError:  # a value that Hydra can't write
        return False


def _choices_beside(definition: Definition) -> dict[str, list[tuple[str, ...]]]:
    """Return for each key the choices beside it: of files (a group has no dot), of classes."""
    groups = [p.name for p in definition.parameters if CHOICE.fullmatch(p.name)]
    choices: dict[str, dict[tuple[str, ...], None]] = {}
    for point in itertools.islice(points(definition), MAX_POINTS) if groups else ():
        chosen = {name: point[name] for name in groups if name in point}
        for name in point:
            others = {k: v for k, v in chosen.items() if k != name}
            choices.setdefault(name, {})[tuple(to_overrides(others))] = None
    return {name: list(each) for name, each in choices.items()}


def _refusals(
    parameter: Parameter, refusal: Refusal, choices: Sequence[tuple[str, ...]]
) -> Iterator[str]:
    for chosen in choices:
        for value in _sample(parameter):
            if isinstance(value, str) and "${" in value:
                continue
            message = refusal(parameter.name, value, chosen)
            if message is not None:
                yield f"{message} [with {' '.join(chosen)}]" if chosen else message


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


def _refusal_of(settings: Mapping[str, Any]) -> Refusal:
    def refusal(key: str, value: Any, choices: Sequence[str]) -> str | None:
        if key not in settings:
            return f"{key!r} is no setting of the trainer{nearest(key, settings)}"
        wanted = settings[key]
        kind = wanted if isinstance(wanted, type) else type(wanted)
        if kind not in _TYPES:
            return None
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if kind is not bool and isinstance(value, bool):
            fits = False
        return None if fits else f"{shown(value)} is refused: {key} takes {_TYPES[kind]}"

    return refusal
