"""Whether a program's source has the ``train(settings)`` that trials are started with.

Example::

    has_train(root / "trainer.py", root)        # True: def train(settings: Settings) -> Result

Many programs have a function ``train`` that takes something else: a model and a loader, W&B's
``config=None``. They are programs of their own, which get what ``wandb agent`` gives them.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

from mlmodeldev.project import import_places

_MOST_IMPORTS = 5
"""Files of which each imports ``train`` from the next."""


def has_train(file: Path, root: Path, name: str = "train", left: int = _MOST_IMPORTS) -> bool:
    """Return whether a file has a function ``train(settings)``, or imports one; runs nothing.

    Args:
        file: a Python file; one that can't be read has none.
        root: the project's folder, from which its own imports are meant.
        name: of the function.
        left: files that may be looked into after this one.
    """
    try:
        here, origins = _look(file, file.stat().st_mtime_ns, name)
    except (OSError, ValueError):
        return False
    if here is not None or not left:
        return bool(here)
    places = [file.parent, *map(Path, import_places(root))]
    return any(
        has_train(place.joinpath(*module.split(".")).with_suffix(".py"), root, there, left - 1)
        for module, there in origins
        for place in places
    )


@lru_cache(maxsize=64)
def _look(file: Path, changed: int, name: str) -> tuple[bool | None, tuple[tuple[str, str], ...]]:
    """Return whether a file's function of this name takes settings; None: it defines none.

    Returns:
        That, and the modules that the file imports the name from, with its name there.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False, ()
    origins: list[tuple[str, str]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _takes_settings(node), ()
        if isinstance(node, ast.ImportFrom) and node.module:
            given = [alias.name for alias in node.names if (alias.asname or alias.name) == name]
            origins += [(node.module, each) for each in given]
    return None, tuple(origins)


def _takes_settings(function: ast.FunctionDef) -> bool:
    """Return whether a function says that it takes settings, and needs nothing else."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    if not positional or required > 1 or None in arguments.kw_defaults:
        return False
    first = positional[0]
    annotation = ast.unparse(first.annotation) if first.annotation else ""
    return first.arg == "settings" or "Settings" in annotation.replace('"', " ").split(".")[-1]
