"""Turn a composed configuration into `Settings`, or into one clear line.

Example::

    validate({"model": {...}, "data": {...}, "optimizer": {"lr": -1}}, root=Path("."))
    # UsageError: optimizer.lr=-1: must be greater than 0 [command line]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.settings.own_optimizer import unused_setting
from mlmodeldev.settings.schema import Settings
from mlmodeldev.settings.signature import check_arguments, in_our_words
from mlmodeldev.settings.source import read_class

Origin = Callable[[str], str]
"""Tells where a dotted key was given, such as ``conf/optimizer/adamw.yaml``."""


def validate(
    container: Mapping[str, Any],
    root: Path = Path(),
    origin: Origin | None = None,
    partial: bool = False,
) -> Settings:
    """Check a plain nested configuration.

    Args:
        container: groups by name, interpolations resolved.
        root: folder of ``model.py`` and ``datamodule.py``.
        origin: names the file (or the command line) that gave a key, for the message.
        partial: whether more settings are to come, so that none can be missing.

    Raises:
        UsageError: for the first key that is unknown, of a wrong type or out of range.
    """
    place = origin or (lambda key: "")
    try:
        settings = Settings.model_validate(dict(container))
    except ValidationError as error:
        raise UsageError(_explain(error, place)) from None
    named = {"model": settings.model, "data": settings.data}
    named |= {f"callbacks.{name}": chosen for name, chosen in settings.callbacks.added.items()}
    for group, arguments in named.items():
        problem = check_arguments(group, arguments, root, partial)
        if problem:
            key, text = problem
            raise UsageError(f"{key}{text}{_bracket(place(key))}")
    _check_optimizer(settings, root)
    return settings


def _check_optimizer(settings: Settings, root: Path) -> None:
    """Refuse settings of the optimizer for a model that, as its source says, makes its own."""
    target = str(settings.model["_target_"])
    module, _, name = target.rpartition(".")
    source = read_class(root, module, name)
    if source is None or not source.makes_optimizer:
        return
    if line := unused_setting(settings.overrides, target, source.arguments or ()):
        raise UsageError(line)


def _explain(error: ValidationError, place: Origin) -> str:
    details = error.errors(include_url=False)
    first = details[0]
    # A union reports one error for each member; the shortest path is the setting itself.
    key = _key(first["loc"])
    texts = [_reason(d, key) for d in details if _key(d["loc"]) == key]
    reason = " or ".join(dict.fromkeys(texts))
    has_value = first["type"] not in ("extra_forbidden", "missing", "value_error")
    given = f"={first['input']!r}" if has_value else ""
    return f"{key}{given}: {reason}{_bracket(place(key))}".removeprefix(": ")


def _key(loc: tuple[int | str, ...]) -> str:
    """Keep the part of pydantic's location that the user wrote (unions add type names to it)."""
    kind: Any = Settings
    parts: list[str] = []
    for part in loc:
        if kind is not None or isinstance(part, int):
            parts.append(str(part))
            kind = _inside(kind, str(part))
    return ".".join(parts)


def _inside(kind: Any, name: str) -> Any:
    """Return the settings class or the mapping that lies under a name, or None."""
    if get_origin(kind) is dict:
        return _container(get_args(kind)[1])
    field = kind.model_fields.get(name) if kind else None
    return _container(field.annotation) if field else None


def _container(annotation: Any) -> Any:
    is_class = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if is_class or get_origin(annotation) is dict:
        return annotation
    return next((c for c in map(_container, get_args(annotation)) if c is not None), None)


def _reason(detail: Any, key: str) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        parent, _, name = key.rpartition(".")
        allowed = sorted(_fields_of(parent))
        return f"no such setting{nearest(name, allowed)} (allowed: {', '.join(allowed)})"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return f"must be one of {detail['ctx']['expected'].replace(' or ', ', ')}" + nearest(
            str(detail["input"]), _literals(detail["ctx"]["expected"])
        )
    return in_our_words(str(detail["msg"]))


def _literals(expected: str) -> list[str]:
    return [word.strip(" '\"") for word in expected.replace(" or ", ",").split(",")]


def _fields_of(dotted: str) -> list[str]:
    kind: Any = Settings
    for part in filter(None, dotted.split(".")):
        kind = _inside(kind, part)
    fields = getattr(kind, "model_fields", ())
    return [name for name in fields if (kind, name) != (Settings, "overrides")]


def _bracket(place: str) -> str:
    return f" [{place}]" if place else ""
