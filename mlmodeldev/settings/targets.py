"""What ``_target_`` names: looked at before anything of it is called.

Where a model, data or a callback is wanted, the class must be of that kind. Among the arguments it
may be any class or function, since those of a model may be anything; but not one that runs
programs, code from text or files that hold code. That list stops what is known and makes no
settings safe to run that come from somebody else: whoever chooses the classes chooses the code.

Example::

    check_kind("callbacks.stop", "subprocess.Popen", (Callback,), "a Lightning Callback")
    # UsageError: callbacks.stop._target_=subprocess.Popen: must be a Lightning Callback
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.lightning_names import of_the_other

_PLAIN = frozenset(
    {
        *("abc", "array", "bisect", "calendar", "collections", "copy", "dataclasses", "datetime"),
        *("decimal", "enum", "fractions", "functools", "heapq", "itertools", "math", "numbers"),
        *("pathlib", "random", "re", "statistics", "string", "textwrap", "time", "types"),
        *("typing", "unicodedata", "uuid", "zoneinfo"),
    }
)
"""Modules of Python's own whose classes and functions make values and do nothing else."""
_BUILTINS = frozenset(
    {
        *("abs", "bool", "bytearray", "bytes", "complex", "dict", "divmod", "enumerate", "filter"),
        *("float", "frozenset", "int", "len", "list", "map", "max", "min", "object", "pow"),
        *("range", "reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple", "zip"),
    }
)
_RUN_FILES = frozenset(
    {
        *("torch.load", "torch.jit.load", "torch.package", "torch.distributed.run"),
        *(
            "torch.hub",
            "torch.utils.cpp_extension",
            "torch.utils.model_zoo",
            "torch.ops.load_library",
        ),
        *("torch.serialization.load", "torch.multiprocessing", "torch.classes.load_library"),
        *("numpy.load", "numpy.f2py", "numpy.distutils", "pandas.read_pickle", "pandas.eval"),
        *(
            "numpy.lib.npyio.load",
            "numpy.lib._npyio_impl.load",
            "pandas.io.pickle",
            "pandas.core.computation",
        ),
        *("joblib", "cloudpickle", "dill", "submitit", "hydra._internal", "hydra.main"),
        *(
            "yaml.load",
            "yaml.unsafe_load",
            "yaml.full_load",
            "yaml.load_all",
            "yaml.unsafe_load_all",
        ),
        *("setuptools", "pip", "IPython", "fsspec.implementations.local", "pkg_resources"),
    }
)
"""Of other packages what runs a program, text or a file that may hold code; with what is in it."""
_LOOKED_UP = frozenset(
    f"hydra.utils.{name}" for name in ("get_method", "get_class", "get_static_method", "get_object")
)
"""Give a class or a function by its name, which counts then."""


def check_kind(place: str, target: Any, kinds: tuple[type, ...], what: str) -> None:
    """Refuse a target that would not give an object of one of these classes.

    A function is taken if its annotation says what it returns.

    Args:
        place: dotted key of the mapping that has the ``_target_``.
        target: the class's dotted name.
        kinds: the classes it may be of.
        what: them in words, for the message.

    Raises:
        UsageError: naming the place.
    """
    located = _located(target)
    if located is None:
        return
    made = located if isinstance(located, type) else _returned(located)
    if not (isinstance(made, type) and issubclass(made, kinds)):
        hint = "" if isinstance(located, type) or not callable(located) else _HINT
        other = of_the_other(made) if isinstance(made, type) else ""
        raise UsageError(f"{place}._target_={target}: must be {what}{other}{hint}")


_HINT = " (a function must say in its annotation that it returns one)"


def check_arguments(place: str, value: Any) -> None:
    """Refuse a value that holds, at any depth, a target which runs programs or code.

    Args:
        place: dotted key of the value.
        value: plain.

    Raises:
        UsageError: naming the place.
    """
    for inner, each in _with_target(place, value):
        _check_harmless(inner, each["_target_"])
        if each["_target_"] in _LOOKED_UP:
            arguments = [each.get("path"), *(each.get("_args_") or ())]
            for name in arguments:
                if isinstance(name, str):
                    _check_harmless(inner, name)


def _located(target: Any) -> Any:
    """Return what a dotted name stands for; its module is imported, nothing is called.

    None where there is no such thing: whoever makes the object says so, in its own words.
    """
    from hydra.utils import get_object

    with contextlib.suppress(Exception):
        return get_object(target)
    return None


def _with_target(place: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield place, value
        for name, inner in value.items():
            yield from _with_target(f"{place}.{name}", inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _with_target(f"{place}[{number}]", inner)


def _check_harmless(place: str, target: Any) -> None:
    """Refuse what runs programs or code, by the name that is given and by its own.

    ``torch.os.system`` is Python's own by another way.
    """
    located = None if _runs_code(str(target)) else _located(target)
    if _runs_code(str(target)) or (located is not None and _runs_code(_own_name(located))):
        raise UsageError(
            f"{place}._target_={target}: may run programs or code, which settings can't do;"
            " call it in a class or function of your own"
        )


def _own_name(located: Any) -> str:
    if inspect.ismodule(located):
        return f"{located.__name__}.*"
    owner = getattr(located, "__self__", None)  # of a method of a class, such as Path.home
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}"
    kind = located if hasattr(located, "__qualname__") else type(located)
    module = getattr(kind, "__module__", None) or "builtins"
    return f"{module}.{kind.__qualname__}"


def _runs_code(name: str) -> bool:
    parts = name.split(".")
    module = parts[0].removeprefix("_") if parts[0] != "__main__" else parts[0]
    if parts[0] == "builtins":
        return parts[1:2] == [] or parts[1] not in _BUILTINS
    if parts[0] in sys.stdlib_module_names:
        return module not in _PLAIN
    return any(".".join(parts[:depth]) in _RUN_FILES for depth in range(1, len(parts) + 1))


def _returned(function: Any) -> Any:
    """Return the class that a function's annotation names; None where it has none."""
    owner = getattr(function, "__self__", None)
    with contextlib.suppress(Exception):  # an annotation of names that are not there
        result = typing.get_type_hints(function).get("return")
        return owner if result is typing.Self else typing.get_origin(result) or result
    return None
