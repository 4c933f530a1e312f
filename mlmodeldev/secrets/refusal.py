"""Refuse keys where they are given: on the command line, in settings, in sweep files, in code.

The message names the place and the kind of key, and never shows it.

Example::

    refuse_in_arguments(["logger.wandb.project=wandb_v1_..."])
    # UsageError: logger.wandb.project: this is a W&B API key; keys belong in ...
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.project import git_output
from mlmodeldev.secrets.patterns import find, mask

ADVICE = "keys belong in .netrc ('wandb login', 'chmod 600 ~/.netrc') or in the environment"
LARGEST = 2 * 2**20
"""Bytes of a file that is looked through; code and settings are smaller, data is larger."""


def refuse_in_arguments(arguments: Sequence[str], place: str = "command line") -> None:
    """Refuse ``key=value`` arguments that hold a key.

    Raises:
        UsageError: naming the argument by what stands before its ``=``.
    """
    for number, argument in enumerate(arguments, 1):
        match = next(find(argument), None)
        if match:
            name, sign, _ = argument.partition("=")
            named = mask(name) if sign else f"argument {number}"
            raise UsageError(f"{named}: this is a key ({match.kind}); {ADVICE} [{place}]")


def refuse_in_values(values: Mapping[str, Any], place: str = "") -> None:
    """Refuse settings, nested or dotted, of which one holds a key.

    Raises:
        UsageError: naming the setting.
    """
    where = f" [{place}]" if place else ""
    for name, text in _texts(values, ""):
        match = next(find(f"{name}={text}".replace("\n", " ")), None)
        if match:
            raise UsageError(f"{mask(name)}: holds a key ({match.kind}); {ADVICE}{where}")


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{name}[{number}]")
    elif isinstance(value, str | Path):
        yield name, str(value)


def refuse_in_text(text: str, file: str) -> None:
    """Refuse a file's text that holds a key.

    Raises:
        UsageError: naming file and line.
    """
    match = next(find(text), None)
    if match:
        raise UsageError(f"{file}:{match.line}: holds a key ({match.kind}); {ADVICE}")


def refuse_secrets(paths: Iterable[Path]) -> None:
    """Refuse files, and the files in folders, of which one holds a key.

    Links, other things than plain files, binary files and those over 2 MiB are not looked into.

    Raises:
        UsageError: naming file and line.
    """
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            text = _read_text(file)
            if text is not None:
                refuse_in_text(text, str(file))


def key_in_changes(folder: Path, program: Path) -> str | None:
    """Return where a key stands in what a tracker may keep of the code, or None.

    That is the program's file, and how the work tree differs from the last commit.
    """
    try:
        refuse_secrets([program])
    except UsageError as error:
        return str(error)
    diff = b""
    with contextlib.suppress(UsageError):  # no repository, or no commit in it yet
        diff = git_output(folder, "diff", "HEAD", seconds=30)
    match = next(find(diff.decode("utf-8", "replace")), None)
    return f"git diff: holds a key ({match.kind}); {ADVICE}" if match else None


def _read_text(file: Path) -> str | None:
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        return text_of(file.read_bytes())
    except OSError:
        return None


def text_of(content: bytes) -> str | None:
    """Return the content of a text file as text; None for a binary one."""
    return None if b"\0" in content[:8000] else content.decode("utf-8", "replace")
