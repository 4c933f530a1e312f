"""What a server may not set: classes, deletions, Hydra itself; unless the sweep lists it.

The values of a run come from the server one by one, for as long as an agent runs. The sweep's
configuration, which is its file, is read once at the start: what it lists may be given, as it
stands there. A range gives numbers, which do no harm.

Example::

    refusal("model.act", {"_target_": "os.system"}, {"values": [1, 2]})   # "the server gives ..."
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

DEEPEST = 100
"""Levels of a value; more than settings ever have."""


def refusal(name: str, value: Any, declared: Any) -> str | None:
    """Return why a value may not come from a server; None: it may.

    Args:
        name: of the parameter; dotted, or the outermost of a nested one.
        value: as the server gives it.
        declared: what the sweep's configuration has of that parameter; None: nothing.
    """
    for place, inner, spec in _leaves(name, value, declared):
        what = _reach(place, inner)
        if what and not any(inner == each for each in _listed(spec)):
            return f"the server gives {place} {what}, which the sweep's file does not list"
    return None


def _leaves(name: str, value: Any, spec: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the parameters that are nested in one: their dotted names, values and declarations."""
    inner = spec.get("parameters") if isinstance(spec, Mapping) else None
    if isinstance(inner, Mapping) and isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(f"{name}.{key}", one, inner.get(key))
    else:
        yield name, value, spec


def _listed(spec: Any) -> list[Any]:
    if not isinstance(spec, Mapping):
        return []
    values = spec.get("values")
    single = [spec["value"]] if "value" in spec else []
    return [*single, *values] if isinstance(values, list) else single


def _reach(name: str, value: Any) -> str:
    """Return in words what a value does beyond being one; empty: nothing."""
    if name.startswith(("~", "+", "-")):
        return "with a sign that adds or deletes settings"
    if name.split(".", maxsplit=1)[0].split("/", maxsplit=1)[0] == "hydra":
        return "of Hydra itself"
    if "_target_" in name:
        return "which names code"
    return _inside(value, 0)


def _inside(value: Any, depth: int) -> str:
    if depth > DEEPEST:
        return f"more than {DEEPEST} levels deep"
    if isinstance(value, str):
        return "which refers to other settings or the environment (${...})" if "${" in value else ""
    if isinstance(value, Mapping):
        if any("_target_" in str(key) for key in value):
            return "which names code"
        return next(filter(None, (_inside(one, depth + 1) for one in value.values())), "")
    if isinstance(value, list | tuple):
        return next(filter(None, (_inside(one, depth + 1) for one in value)), "")
    return ""
