"""What the constructors of a repository's classes take, as values of a settings file.

Run in a process of its own, since it imports the repository's code::

    python -m mlmodeldev.template.adopt_signature ROOT OUT.json pkg.mod:Net pkg.data:Data
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import inspect
import json
import math
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlmodeldev.project import put_on_path

_VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class CannotWrite(Exception):
    """A value that no settings file can hold; the text names it."""


def main(arguments: list[str]) -> None:
    """Describe each class in a JSON file; one that can't be imported has an ``error``."""
    root, out, *targets = arguments
    put_on_path(Path(root))
    from mlmodeldev.settings.lightning_names import accept_both_names

    accept_both_names()
    described = [_described(target) for target in targets]
    Path(out).write_text(json.dumps(described), encoding="utf-8")


def _described(target: str) -> dict[str, Any]:
    module, _, name = target.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except AttributeError:
        names = [key for key, value in vars(sys.modules[module]).items() if inspect.isclass(value)]
        return {"error": f"{module} has no class {name}", "names": names}
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        return {"error": f"importing {module}: {type(error).__name__}: {text}", "missing": missing}
    if not inspect.isclass(kind):
        return {"error": f"{target} is no class"}
    arguments, of_bases = signature_of(kind)
    return {
        "kinds": [base.__name__ for base in kind.__mro__],
        "arguments": arguments,
        "of_bases": of_bases,
        "makes_optimizer": _makes_optimizer(kind),
        "fills": hasattr(kind, "info"),
        "own_loaders": _defines(kind, "train_dataloader", "LightningModule"),
    }


def _makes_optimizer(kind: type) -> bool:
    return _defines(kind, "configure_optimizers", "LightningModule")


def _defines(kind: type, method: str, base: str) -> bool:
    """Whether a class has a method of its own, not only that of Lightning's base."""
    for each in kind.__mro__:
        if each.__name__ == base or each.__module__.startswith("pytorch_lightning.core"):
            return False
        if method in vars(each):
            return True
    return False


def signature_of(kind: type) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Return the arguments of a constructor, and those of its bases that ``**kwargs`` may reach.

    Each argument has ``name``, ``annotation``, and either ``required``, ``value`` (what a settings
    file can hold) or ``unwritten`` (why it can't). The second is None where there is no
    ``**kwargs``.
    """
    own: dict[str, dict[str, Any]] = {}
    of_bases: dict[str, dict[str, Any]] | None = None
    for each in kind.__mro__:
        if each.__module__.startswith(("pytorch_lightning.core.", "torch.")) or each is object:
            break
        if "__init__" not in vars(each):
            continue
        parameters = list(inspect.signature(each).parameters.values())
        named = {one.name: _argument(one) for one in parameters if one.kind not in _VARIABLE}
        if of_bases is None:
            own = named
        else:
            of_bases |= {key: one for key, one in named.items() if key not in {**own, **of_bases}}
        if all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in parameters):
            break
        of_bases = of_bases or {}
    return list(own.values()), None if of_bases is None else list(of_bases.values())


def _argument(parameter: inspect.Parameter) -> dict[str, Any]:
    empty = inspect.Parameter.empty
    annotation = parameter.annotation
    text = "" if annotation is empty else _annotation(annotation)
    described: dict[str, Any] = {"name": parameter.name, "annotation": text}
    if parameter.default is empty:
        return {**described, "required": True}
    try:
        return {**described, "value": written(parameter.default)}
    except CannotWrite as reason:
        return {**described, "unwritten": str(reason)}


def _annotation(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        builtin = annotation.__module__ == "builtins"
        return annotation.__qualname__ if builtin else _path_of(annotation)
    if isinstance(annotation, types.ModuleType):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


# --- values


def written(value: Any) -> Any:
    """Return a value as a settings file holds it: plain, or a mapping with ``_target_``.

    Raises:
        CannotWrite: it is neither.
    """
    if value is None or (isinstance(value, bool | int) and type(value) in (bool, int)):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is str:
        if "${" in value or value == "???":
            raise CannotWrite(f"the text {value!r}")
        return value
    if type(value) in (list, tuple):
        return [written(item) for item in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: written(item) for key, item in value.items()}
    return _object(value)


def _object(value: Any) -> Any:
    if isinstance(value, Path):
        return {"_target_": "pathlib.Path", "_args_": [str(value)]}
    if isinstance(value, enum.Enum):
        return _reference(f"{_path_of(type(value))}.{value.name}")
    if isinstance(value, functools.partial) and not value.args:
        keywords = {key: written(item) for key, item in value.keywords.items()}
        return {"_target_": _path_of(value.func), "_partial_": True, **keywords}
    if inspect.isclass(value) or inspect.isroutine(value):
        return _reference(_path_of(value))
    if type(value).__module__ == "torch" and str(value).startswith("torch."):  # a dtype
        return _reference(str(value))
    return _instance(value)


def _reference(path: str) -> dict[str, Any]:
    return {"_target_": "hydra.utils.get_object", "path": path}


def _path_of(value: Any) -> str:
    """Return the dotted name that a class or function is imported by.

    Raises:
        CannotWrite: it has none (a lambda, a function within another).
    """
    module = getattr(value, "__module__", None) or ""
    name = getattr(value, "__qualname__", "")
    path, here = f"{module}.{name}", sys.modules.get(module)
    if here is None or module == "__main__" or not name or "<" in name:
        raise CannotWrite(f"{name or value!r}, which has no name to import it by")
    for part in name.split("."):
        here = getattr(here, part, None)
    if here is None or (here is not value and here != value):
        raise CannotWrite(f"{path}, which can't be imported by this name")
    return path.removeprefix("builtins.") if module != "builtins" else path


def _instance(value: Any) -> dict[str, Any]:
    """Return an object as its class and arguments, where making it again gives an equal one."""
    kind = type(value)
    result: dict[str, Any] = {"_target_": _path_of(kind)}
    made: dict[str, Any] = {}
    for name, default, present in _remembered(kind, value):
        if present is not default and present != default:
            result[name] = written(present)
            made[name] = present
    try:
        again = kind(**made)
        same = again == value or (
            repr(again) == repr(value) and not repr(value).startswith(f"<{kind.__module__}.")
        )
    except Exception as error:
        raise CannotWrite(f"an object of {_path_of(kind)}") from error
    if not same:
        raise CannotWrite(f"an object of {_path_of(kind)}")
    return result


def _remembered(kind: type, value: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the arguments of an object's class: name, default, and what the object has kept."""
    if dataclasses.is_dataclass(kind):
        names = {field.name for field in dataclasses.fields(kind) if field.init}
    else:
        names = set(vars(value))
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(kind).parameters
    except (TypeError, ValueError):
        return
    for name, parameter in parameters.items():
        if name in names and parameter.kind not in _VARIABLE:
            yield name, parameter.default, getattr(value, name)


if __name__ == "__main__":
    main(sys.argv[1:])
