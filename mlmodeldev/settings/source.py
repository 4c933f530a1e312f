"""What a class of the project takes, read from the source text: nothing is imported.

Names that a file imports from another of the project's files are followed, and so are bases.

Example::

    read_class(Path("."), "model", "DualEncoder").arguments["dropout"].required     # False
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter

from mlmodeldev.project import SOURCES, is_file

_STRICT = ConfigDict(strict=True)
_FAR = 8
"""So many imports or bases are followed, one after the other."""

_OF_TYPES = {"typing", "typing_extensions", "collections.abc", "pathlib", "pydantic"}
"""Modules whose names an annotation may be made of, imported in whatever way."""
_OF_TYPING = (
    *("Annotated", "Any", "Literal", "Optional", "Union"),
    *("Dict", "FrozenSet", "Iterable", "List", "Mapping", "Sequence", "Set", "Tuple"),
)
_NEVER_SETTINGS = {"Callable", "Iterator", "Generator", "Type", "type"}
"""Types that no value of a file of settings can have."""


class Argument(NamedTuple):
    """One argument of a constructor."""

    adapter: TypeAdapter[Any] | None
    """Checks a value; None: a type that only the constructor can judge."""
    required: bool


class Keywords(NamedTuple):
    """What a constructor takes by name."""

    names: tuple[str, ...]
    takes_any: bool
    """Whether it takes other names, too (``**kwargs``)."""


@dataclass(frozen=True)
class ClassSource:
    """What the source tells of a class."""

    file: Path
    """Where it is, or should be."""
    names: tuple[str, ...] | None = None
    """Only if there is no such class: those that there are."""
    arguments: Mapping[str, Argument] | None = None
    """Of its constructor; None where the source can't tell."""
    keywords: Keywords | None = None
    """Likewise, but by their names alone; None: ``__init__`` is outside of the project."""
    makes_optimizer: bool = False
    """Whether it defines ``configure_optimizers``, as far as the source tells."""


@dataclass(frozen=True, eq=False)
class _File:
    path: Path
    module: str
    classes: Mapping[str, ast.ClassDef]
    imports: Mapping[str, tuple[str, str]]
    """Module and name behind each name of a ``from ... import``."""
    others: frozenset[str]
    """Names that are bound in a way that the text does not explain."""
    is_open: bool
    """Whether it may have names that it does not show (``import *``, ``__getattr__``)."""
    names: Mapping[str, Any]
    """What an annotation may be made of."""


def read_class(root: Path, module: str, name: str) -> ClassSource | None:
    """Return what the source tells; None for a class that is not in the project's own files.

    Args:
        root: the project's folder.
        module: dotted, such as ``zoo.nets``.
        name: of the class.
    """
    first = _read(root, module)
    if first is None:
        return None
    place = _follow(root, first, name)
    if place is None:
        listed = (*first.classes, *first.imports)
        return ClassSource(first.path, names=listed)
    if not isinstance(place, tuple):
        return None
    file, name = place
    return ClassSource(
        file.path,
        arguments=_constructor(root, file, name),
        keywords=_keywords(root, file, name),
        makes_optimizer=any(
            isinstance(part, ast.FunctionDef) and part.name == "configure_optimizers"
            for _, node in _ancestry(root, file, name)
            for part in node.body
        ),
    )


def _follow(root: Path, file: _File, name: str, far: int = _FAR) -> tuple[_File, str] | bool | None:
    """Return the file that defines a class, and its name there; True: can't be told; None: none."""
    if name in file.classes:
        return file, name
    if name in file.imports:
        module, name = file.imports[name]
        other = _read(root, module) if far else None
        return True if other is None else _follow(root, other, name, far - 1)
    return True if file.is_open or name in file.others else None


def _ancestry(root: Path, file: _File, name: str) -> Iterator[tuple[_File, ast.ClassDef]]:
    """Yield a class and its first bases, as far as they are in the project."""
    for _ in range(_FAR):
        node = file.classes[name]
        yield file, node
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        places = [_follow(root, file, base) for base in bases]
        place = next((place for place in places if isinstance(place, tuple)), None)
        if place is None:
            return
        file, name = place


def _constructor(root: Path, file: _File, name: str) -> Mapping[str, Argument] | None:
    """Return each argument of a class.

    None where the source can't tell: ``**kwargs``, or an ``__init__`` outside of the project.
    """
    for place, node in _ancestry(root, file, name):
        if any(map(_is_init, node.body)):
            return _arguments(place, node.name)
    return None


def _keywords(root: Path, file: _File, name: str) -> Keywords | None:
    for _, node in _ancestry(root, file, name):
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                first = 0 if part.args.posonlyargs else 1  # without self
                named = [*part.args.args[first:], *part.args.kwonlyargs]
                return Keywords(tuple(arg.arg for arg in named), part.args.kwarg is not None)
    return None


def _is_init(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


@functools.lru_cache(maxsize=64)
def _arguments(file: _File, name: str) -> Mapping[str, Argument] | None:
    init: Any = next(filter(_is_init, file.classes[name].body))
    if init.args.kwarg:
        return None
    types = _types(init.args, file.names)
    return {key: Argument(_adapter(kind), required) for key, (kind, required) in types}


def _types(args: ast.arguments, names: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, bool]]]:
    positional = [*args.posonlyargs, *args.args][1:]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    for arg, default in zip(positional, [*defaults, *args.defaults], strict=False):
        yield arg.arg, (_type(arg, default, names), default is None)
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield arg.arg, (_type(arg, default, names), default is None)


def _type(arg: ast.arg, default: ast.expr | None, names: Mapping[str, Any]) -> Any:
    kind = _evaluate(arg.annotation, names)
    if kind is not Any and isinstance(default, ast.Constant) and default.value is None:
        return kind | None  # many write x: int = None
    return kind


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        adapter = TypeAdapter(annotation, config=_STRICT)
    except Exception:  # a type of another library, or text that no one has evaluated yet
        return None
    return adapter if adapter.pydantic_complete else None


def _evaluate(annotation: ast.expr | None, names: Mapping[str, Any]) -> Any:
    if annotation is None:
        return Any
    try:
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        words = {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(annotation)}
        if words & _NEVER_SETTINGS:
            return Any
        code = compile(ast.Expression(annotation), "<annotation>", "eval")
        return eval(code, {"__builtins__": {}}, dict(names))
    except Exception:  # whatever an annotation may raise that is made for another reader
        return Any


def _read(root: Path, module: str) -> _File | None:
    if not all(part.isidentifier() for part in module.split(".")):
        return None  # no module, and a path that leads anywhere
    for path in (root / source / module.replace(".", "/") for source in SOURCES):
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if module and is_file(file):
                return _parse(file, file.stat().st_mtime_ns, module)
    return None


@functools.lru_cache(maxsize=64)
def _parse(file: Path, changed: int, module: str) -> _File | None:
    """Read a file; cached, since a sweep is checked value by value.

    Args:
        changed: when the file did, so that an edited one is read anew.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (SyntaxError, ValueError):
        return None  # whoever imports it says where
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    imports = {
        alias.asname or alias.name: (_absolute(package, node), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return _File(
        file,
        module,
        {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)},
        {name: place for name, place in imports.items() if name != "*"},
        frozenset(_bound(tree)),
        "*" in imports or any(_is_getattr(node) for node in tree.body),
        _names_for_annotations(tree),
    )


def _absolute(package: str, node: ast.ImportFrom) -> str:
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    return ".".join(part for part in (*above, node.module) if part)


def _bound(tree: ast.Module) -> Iterator[str]:
    tops = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ClassDef) and id(node) not in tops:
            yield node.name


def _is_getattr(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__getattr__"


def _names_for_annotations(tree: ast.Module) -> dict[str, Any]:
    """Return builtins, names of typing and the like, and the file's own aliases of them."""
    kinds = (bool, dict, float, frozenset, int, list, set, str, tuple)
    names: dict[str, Any] = {kind.__name__: kind for kind in kinds}
    typing, pydantic = importlib.import_module("typing"), importlib.import_module("pydantic")
    names |= {name: getattr(typing, name) for name in _OF_TYPING}
    names |= {"Field": pydantic.Field, "Path": Path}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= dict(_modules(node))
        elif isinstance(node, ast.ImportFrom) and node.module in _OF_TYPES:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if hasattr(module, alias.name):
                    names[alias.asname or alias.name] = getattr(module, alias.name)
    for each in tree.body:  # aliases such as Size = Annotated[int, Field(ge=1)]
        if isinstance(each, ast.Assign) and isinstance(each.value, ast.Subscript | ast.BinOp):
            value = _evaluate(each.value, names)
            names.update({t.id: value for t in each.targets if isinstance(t, ast.Name)})
    return names


def _modules(node: ast.Import) -> Iterator[tuple[str, Any]]:
    for alias in node.names:
        if alias.name in _OF_TYPES:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or name, importlib.import_module(name)
