"""Check `model` and `data` against the class they name, without importing it.

Importing ``model.py`` costs seconds (torch); a typo should not. So the class's ``__init__`` is
read from the source text, and its annotations become the types that settings must have. Ranges go
into the annotation: ``dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1``.

Example::

    check_arguments("model", {"_target_": "model.DualEncoder", "widht": 64}, Path("."))
    # ('model.widht', ": no such setting; did you mean 'width'? (allowed: ...)")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlmodeldev.errors import nearest
from mlmodeldev.settings.instantiation import INSTRUCTIONS, has_target
from mlmodeldev.settings.source import Argument, read_class

Problem = tuple[str, str]
"""The dotted key, and what is wrong with it."""


def check_arguments(
    group: str, arguments: Mapping[str, Any], root: Path, partial: bool = False
) -> Problem | None:
    """Return what is wrong with a group that has ``_target_``, or None.

    Targets outside of the project's own files (``torch.nn.Linear``) are left to their constructor.

    Args:
        group: dotted name, such as ``model``.
        arguments: the group's settings.
        root: the project's folder.
        partial: whether more settings are to come, so that none can be missing.
    """
    target = arguments.get("_target_")
    if not isinstance(target, str) or "." not in target:
        return f"{group}._target_", f"={target!r}: must name a class, such as model.DualEncoder"
    module, _, name = target.rpartition(".")
    source = read_class(root, module, name)
    if source is None:
        return None
    if source.names is not None:
        hint = nearest(name, source.names)
        return f"{group}._target_", f"={target}: {source.file.name} has no such class{hint}"
    if source.arguments is None:
        return None
    # What a model lacks the data may fill in, which is seen when it is made.
    complete = partial or group == "model" or bool(arguments.get("_args_"))
    return _check(group, arguments, source.arguments, complete)


def _check(
    group: str, arguments: Mapping[str, Any], signature: Mapping[str, Argument], complete: bool
) -> Problem | None:
    for key, value in arguments.items():
        if key in INSTRUCTIONS:
            continue
        if key not in signature:
            allowed = ", ".join(sorted(signature))
            hint = nearest(key, signature)
            return f"{group}.{key}", f": no such setting{hint} (allowed: {allowed})"
        reason = "" if has_target(value) else _mismatch(signature[key].adapter, value)
        if reason:
            return f"{group}.{key}", f"={value!r}: {reason}"
    missing = [key for key, one in signature.items() if one.required and key not in arguments]
    return (f"{group}.{missing[0]}", ": is missing") if missing and not complete else None


def _mismatch(adapter: TypeAdapter[Any] | None, value: Any) -> str:
    try:
        if adapter is not None:  # as JSON: a list may be a tuple then, and text a path
            adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        return " or ".join(dict.fromkeys(in_our_words(e["msg"]) for e in error.errors()))
    return ""


def in_our_words(message: str) -> str:
    """Return pydantic's message as the end of "KEY=VALUE: ..."."""
    text = message.removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    text = text.replace("a valid array", "a valid list").replace("an object", "a mapping")
    return text.replace("should", "must", 1)
