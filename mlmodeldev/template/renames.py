"""Settings that got another name, and how the user's YAML files learn it.

Example::

    rename_settings("training:\\n  nonfinite: skip\\n", "", {"training.nonfinite": "training.nan"})
    # "training:\\n  nan: skip\\n"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

RENAMED_SETTINGS: dict[str, str] = {}
"""Old dotted name to new one, of settings in conf/ and in sweep files; `update` applies it."""

_KEY = re.compile(r"( *)([A-Za-z_]\w*)(\s*:(?:\s.*)?)", re.DOTALL)
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)


def package_of(path: str, text: str) -> str:
    """Return where a YAML file's keys belong: ``training``, or "" where they are whole names."""
    parts = PurePosixPath(path).parts
    group = ".".join(parts[1:-1]) if parts[0] == "conf" else ""
    header = _PACKAGE.search(text)
    if not header or header[1] == "_group_":
        return group
    return "" if header[1] == "_global_" else header[1]


def rename_settings(text: str, package: str, renames: Mapping[str, str]) -> str:
    """Return a YAML text with the new names of settings; comments and layout stay.

    Names are found as nested keys, a key a line, and wherever they are written with dots: as keys
    of a sweep file, in ``${...}``, in comments.
    """
    lines = []
    above: list[tuple[int, str]] = []  # the keys that a line lies below, with their indents
    for line in text.splitlines(keepends=True):
        key = _KEY.match(line)
        if key:
            indent = len(key[1])
            above = [item for item in above if item[0] < indent]
            # W&B writes nested settings of a sweep with this word at each level
            names = [name for _, name in above if name != "parameters"]
            above.append((indent, key[2]))
            old = ".".join(part for part in (package, *names, key[2]) if part)
            new = _new_leaf(old, renames)
            lines.append(_with_dotted(f"{key[1]}{new}{key[3]}", renames))
        else:
            lines.append(_with_dotted(line, renames))
    return "".join(lines)


def _new_leaf(old: str, renames: Mapping[str, str]) -> str:
    """Return a key's new name; its old one where it would move to another group."""
    (group, _, leaf), (new_group, _, new_leaf) = (
        name.rpartition(".") for name in (old, renames.get(old, old))
    )
    return new_leaf if new_group == group else leaf


def _with_dotted(line: str, renames: Mapping[str, str]) -> str:
    for old, new in renames.items():
        line = re.sub(rf"(?<![\w.]){re.escape(old)}(?!\w)", new, line)
    return line
