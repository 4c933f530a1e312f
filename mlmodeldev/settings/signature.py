"""Check `model` and `data` against the class they name, without importing it.

Importing ``model.py`` costs seconds (torch); a typo should not. So the class's ``__init__`` is
read from the source text, and its annotations become the types that settings must have. Ranges go
into the annotation: ``dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1``.

Example::

    check_arguments("model", {"_target_": "model.DualEncoder", "widht": 64}, Path("."))
    # ('model.widht', ": no such setting; did you mean 'width'? (allowed: ...)")
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from mlmodeldev.errors import nearest

# What an annotation may be made of; anything else is taken as Any.
_NAMES: dict[str, Any] = {
    "Annotated": Annotated,
    "Any": Any,
    "Field": Field,
    "Literal": Literal,
    **{kind.__name__: kind for kind in (bool, dict, float, int, list, str)},
}
_STRICT = ConfigDict(strict=True)

Problem = tuple[str, str]
"""The dotted key, and what is wrong with it."""


class _Argument(NamedTuple):
    adapter: TypeAdapter[Any] | None
    """Checks a value; None: a type that only the constructor knows."""
    required: bool


class _Source(NamedTuple):
    classes: frozenset[str]
    """The names of all classes of the file."""
    arguments: dict[str, _Argument] | None
    """Of the class in question; None where the source can't tell."""


def check_arguments(group: str, arguments: Mapping[str, Any], root: Path) -> Problem | None:
    """Return what is wrong with a group that has ``_target_``, or None.

    Targets outside of the project's own files (``torch.nn.Linear``) are left to their constructor.
    """
    target = arguments.get("_target_")
    if not isinstance(target, str) or "." not in target:
        return f"{group}._target_", f"={target!r}: must name a class, such as model.DualEncoder"
    module, _, name = target.rpartition(".")
    file = root / (module.replace(".", "/") + ".py")
    if not file.is_file():
        return None
    source = _read_class(file, file.stat().st_mtime_ns, name)
    if name not in source.classes:
        hint = nearest(name, source.classes)
        return f"{group}._target_", f"={target}: {file.name} has no such class{hint}"
    return None if source.arguments is None else _check(group, arguments, source.arguments)


def _check(
    group: str, arguments: Mapping[str, Any], signature: Mapping[str, _Argument]
) -> Problem | None:
    for key, value in arguments.items():
        if key == "_target_":
            continue
        if key not in signature:
            allowed = ", ".join(sorted(signature))
            hint = nearest(key, signature)
            return f"{group}.{key}", f": no such setting{hint} (allowed: {allowed})"
        reason = _mismatch(signature[key].adapter, value)
        if reason:
            return f"{group}.{key}", f"={value!r}: {reason}"
    missing = [key for key, one in signature.items() if one.required and key not in arguments]
    return (f"{group}.{missing[0]}", ": is missing") if missing else None


def _mismatch(adapter: TypeAdapter[Any] | None, value: Any) -> str:
    try:
        if adapter is not None:
            adapter.validate_python(value)
    except ValidationError as error:
        return " or ".join(dict.fromkeys(in_our_words(e["msg"]) for e in error.errors()))
    return ""


def in_our_words(message: str) -> str:
    """Return pydantic's message as the end of "KEY=VALUE: ..."."""
    text = message.removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    return text.replace("should", "must", 1)


@functools.lru_cache(maxsize=64)
def _read_class(file: Path, changed: int, name: str) -> _Source:
    """Read a class; cached, since a sweep is checked value by value.

    Args:
        changed: when the file did, so that an edited one is read anew.
    """
    classes, names = _read(file)
    types = _annotations(classes, names, name) if name in classes else None
    if types is None:
        return _Source(frozenset(classes), None)
    arguments = {key: _Argument(_adapter(kind), need) for key, (kind, need) in types.items()}
    return _Source(frozenset(classes), arguments)


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(annotation, config=_STRICT)
    except PydanticUserError:
        return None


def _read(file: Path) -> tuple[dict[str, ast.ClassDef], dict[str, Any]]:
    """Return a file's classes, and the names that an annotation in it may use."""
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names = dict(_NAMES)
    for node in tree.body:  # aliases such as Size = Annotated[int, Field(ge=1)]
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            value = _evaluate(node.value, names)
            names.update({t.id: value for t in node.targets if isinstance(t, ast.Name)})
    return classes, names


def _annotations(
    classes: Mapping[str, ast.ClassDef], names: Mapping[str, Any], name: str
) -> dict[str, tuple[Any, bool]] | None:
    """Map each argument to its type and whether it is required; bases in the file are followed.

    None where the source can't tell: ``**kwargs``, or an ``__init__`` of a base in another file.
    """
    node = classes[name]
    init = next(
        (n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None
    )
    if init is None:
        bases = [b.id for b in node.bases if isinstance(b, ast.Name) and b.id in classes]
        return _annotations(classes, names, bases[0]) if bases else None
    if init.args.kwarg:
        return None
    positional = init.args.args[1:]
    optional = len(init.args.defaults)
    types = {
        arg.arg: (_evaluate(arg.annotation, names), index < len(positional) - optional)
        for index, arg in enumerate(positional)
    }
    for arg, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        types[arg.arg] = (_evaluate(arg.annotation, names), default is None)
    return types


def _evaluate(annotation: ast.expr | None, names: Mapping[str, Any]) -> Any:
    if annotation is None:
        return Any
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    code = compile(ast.Expression(annotation), "<annotation>", "eval")
    try:
        return eval(code, {"__builtins__": {}}, dict(names))
    except (NameError, AttributeError, TypeError):
        return Any
