"""Whether a sweep's program is one of ours, which forks can train, or any other.

Example::

    trains(Path("trainer.py"))      # True: it has train(settings)
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmodeldev.sweep.definition import Definition


def program_of(definition: Definition, root: Path) -> Path:
    """Return the sweep's program; a relative path is meant from the project's folder."""
    return root / definition.texts.get("program", "trainer.py")


def is_foreign(definition: Definition, root: Path) -> bool:
    """Return whether the program is there, and has no ``train(settings)`` that a fork could call.

    Its parameters are its own, so nothing is known of their names and types.
    """
    file = program_of(definition, root)
    return file.is_file() and not trains(file)


def trains(file: Path) -> bool:
    """Return whether a Python file has a name ``train``, without importing it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "train":
            return True
        if isinstance(node, ast.ImportFrom) and any(
            "train" in (alias.asname, alias.name) for alias in node.names
        ):
            return True
    return False
