"""The Lightning classes of a repository, read from its source text: nothing is imported.

Example::

    find_classes(Path("their-repo")).models     # ["net.pl_model:Net"]
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.project import SOURCES

MODULE, DATA_MODULE = "LightningModule", "LightningDataModule"

_PASSED_OVER = {"runs", "build", "dist", "docs", "tests", "test", "node_modules", "site-packages"}
"""Folders that hold no models of one's own; so are hidden ones and environments."""

_MOST = 8
"""So many candidates are named."""


@dataclass(frozen=True)
class Candidates:
    """The classes that can be adopted, each as ``package.module:Class``."""

    models: list[str]
    data: list[str]

    def choose(self, option: str, given: str | None) -> str:
        """Return what was named, or the only candidate that there is.

        Args:
            option: ``--model`` or ``--data``.
            given: ``package.module:Class`` or with a dot before the class; None: not named.

        Raises:
            UsageError: nothing was named, and there are none or several.
        """
        names = self.models if option == "--model" else self.data
        if given is not None:
            return _colon(option, given, names)
        if len(names) == 1:
            return names[0]
        kind = MODULE + " with a training_step" if option == "--model" else DATA_MODULE
        if not names:
            raise UsageError(
                f"{option}: the repository has no {kind} of its own; name one: {option}"
                " package.module:Class"
            )
        raise UsageError(f"{option}: which? the repository has {_listed(names)}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if names[_MOST:] else ""
    return ", ".join(names[:_MOST]) + more


def find_classes(root: Path) -> Candidates:
    """Return the classes of a repository that Lightning can train and feed.

    Classes that only others are made from are left out: a base is not what is trained.
    """
    classes = {place: node for file in _files(root) for place, node in _classes_of(root, file)}
    by_name: dict[str, list[ast.ClassDef]] = {}
    for (_, name), node in classes.items():
        by_name.setdefault(name, []).append(node)
    bases = {base for node in classes.values() for base in _bases(node)}
    models, data = [], []
    for (module, name), node in sorted(classes.items()):
        ancestry = list(_ancestry(node, by_name))
        kinds = {base for each in ancestry for base in _bases(each)}
        if name in bases:
            continue
        if DATA_MODULE in kinds:
            data.append(f"{module}:{name}")
        elif MODULE in kinds and any(_has(each, "training_step") for each in ancestry):
            models.append(f"{module}:{name}")
    return Candidates(models, data)


def _colon(option: str, given: str, names: list[str]) -> str:
    module, mark, name = given.rpartition(":" if ":" in given else ".")
    parts = [*module.split("."), name]
    if not mark or not all(part.isidentifier() for part in parts):
        raise UsageError(
            f"{option} {given}: must be package.module:Class{nearest(given, names)}"
            + (f" (the repository has {_listed(names)})" if names else "")
        )
    return f"{module}:{name}"


def _files(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root):
        below[:] = sorted(
            name
            for name in below
            if name not in _PASSED_OVER
            and not name.startswith(".")
            and not (Path(folder) / name / "pyvenv.cfg").is_file()
        )
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(".py"))


def module_name(root: Path, file: Path) -> str | None:
    """Return the name that a file is imported by, or None if its path can't be one.

    ``src/net.py`` is ``net``, unless ``src`` is a package itself.
    """
    for source in reversed(SOURCES):
        base = root / source
        if not file.is_relative_to(base) or (base != root and (base / "__init__.py").is_file()):
            continue
        parts = file.relative_to(base).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        return ".".join(parts) if parts and all(p.isidentifier() for p in parts) else None
    return None


def _classes_of(root: Path, file: Path) -> Iterator[tuple[tuple[str, str], ast.ClassDef]]:
    module = module_name(root, file)
    if module is None:
        return
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield (module, node.name), node


def _bases(node: ast.ClassDef) -> Iterator[str]:
    for base in node.bases:
        inner = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr


def _ancestry(node: ast.ClassDef, by_name: dict[str, list[ast.ClassDef]]) -> Iterator[ast.ClassDef]:
    """Yield a class and those it is made from, as far as the repository has them."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [other for base in _bases(each) for other in by_name.get(base, [])]


def _has(node: ast.ClassDef, method: str) -> bool:
    return any(isinstance(part, ast.FunctionDef) and part.name == method for part in node.body)
