"""Which files of the project a trial's code is made of, and which of them have changed.

trainer.py, the files of the classes that the settings name (``_target_``), and what these import,
as long as it lies in the project: nothing is imported to find out. The library, the environment
and installed packages are not counted; the record has their versions.

Example::

    code = code_digests(settings.model_dump(), root)   # {"model.py": "9a0d3c...", ...}
    changed_files(record, root)                        # ["model.py"]
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlmodeldev.project import SOURCES

_PROGRAM = "trainer.py"
_NOT_OF_THE_PROJECT = {"mlmodeldev", "site-packages", "node_modules", "runs"}

_loaded: dict[Path, str] = {}
"""Digests of the files that this process, or the one that it was forked from, runs already."""


def code_digests(settings: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Return 16 hexadecimal digits of the content of each file, by its path below the project.

    Args:
        settings: nested; every ``_target_`` of ``model``, ``data`` and ``callbacks`` counts.
        root: the project's folder.
    """
    groups = [settings.get(name) for name in ("model", "data", "callbacks")]
    names = {target for group in groups for target in _targets(group)}
    files: dict[Path, str] = {}
    waiting = [root / _PROGRAM, *(f for name in names for f in _files_of(name, root))]
    while waiting:
        file = waiting.pop()
        if file in files or not file.is_file():
            continue
        content = file.read_bytes()
        files[file] = _loaded.get(file) or _digest(content)
        waiting += (f for name in _imports(content, file, root) for f in _files_of(name, root))
    return {file.relative_to(root).as_posix(): files[file] for file in sorted(files)}


def changed_files(record: Mapping[str, Any], root: Path) -> list[str]:
    """Return the files of a trial's record that are others now, or gone.

    The record of an earlier version names no files: nothing can be said of it.
    """
    before: Mapping[str, str] = record.get("code") or {}
    return [name for name, digest in before.items() if _present_digest(root / name) != digest]


def note_loaded(root: Path) -> None:
    """Remember what the modules look like that are imported now; forks of this process run them.

    A file that is edited later does not reach them, and so must not reach their record.
    """
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        path = Path(file) if isinstance(file, str) else None
        if path is not None and path.suffix == ".py" and _is_of_project(path, root):
            _loaded.setdefault(path, _digest(path.read_bytes()))


def _present_digest(file: Path) -> str | None:
    if file in _loaded:
        return _loaded[file]
    try:
        status = file.stat()
        return _digest_of_version(file, status.st_mtime_ns, status.st_size)
    except OSError:
        return None


@functools.lru_cache(maxsize=1024)
def _digest_of_version(file: Path, time: int, size: int) -> str:
    """Return a file's digest; a sweep's thousand trials ask for the same few."""
    return _digest(file.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _targets(value: Any) -> Iterator[str]:
    """Yield every ``_target_`` of nested settings."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "_target_" and isinstance(item, str):
                yield item
            else:
                yield from _targets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _targets(item)


def _files_of(name: str, root: Path) -> Iterator[Path]:
    """Yield the files that are run when a dotted name is imported: packages, then the module."""
    parts = name.split(".")
    for source in SOURCES:
        folder = root / source
        for part in parts:
            module, package = folder / f"{part}.py", folder / part
            if (package / "__init__.py").is_file():
                yield from _within(package / "__init__.py", root)
            elif module.is_file():
                yield from _within(module, root)
                break
            elif not package.is_dir():  # a folder without __init__.py is a package, too
                break
            folder = package


def _within(file: Path, root: Path) -> Iterator[Path]:
    if _is_of_project(file, root):
        yield file


def _is_of_project(file: Path, root: Path) -> bool:
    if not file.is_relative_to(root):
        return False
    parts = file.relative_to(root).parts
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and _NOT_OF_THE_PROJECT.isdisjoint(parts)


def _imports(content: bytes, file: Path, root: Path) -> Iterable[str]:
    """Return the dotted names that a file's text imports, relative ones made whole."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return set()  # importing it will say so
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(filter(None, [_package(file, root, node.level), node.module or ""]))
            names.update(f"{start}.{alias.name}".lstrip(".") for alias in node.names)
    return names


def _package(file: Path, root: Path, level: int) -> str:
    """Return the package that an import with so many leading dots begins at; no dots: none."""
    if not level:
        return ""
    folder = file.parents[level - 1]
    base = root / "src" if folder.is_relative_to(root / "src") else root
    return ".".join(folder.relative_to(base).parts) if folder.is_relative_to(base) else ""
