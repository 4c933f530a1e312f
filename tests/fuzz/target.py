"""A target: how odd input for a part of the library is made, and what must hold of its answer."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from mlmodeldev.errors import UsageError
from tests.fuzz.guard import watched


@dataclass(frozen=True)
class Target:
    """A target.

    Attributes:
        name: as on the command line.
        modules: of the library, whose branches are counted.
        make: an input from random choices, hypothesis's or a seeded generator's.
        check: raises if what must hold does not; gets the input and an empty folder.
        fills: whether inputs leave files, so that the folder is emptied after each.
        whole: whether an input is a whole command, in a process of its own.
    """

    name: str
    modules: tuple[str, ...]
    make: Callable[[Random], Any]
    check: Callable[[Any, Path], None]
    fills: bool = True
    whole: bool = False

    def try_one(self, given: Any, folder: Path, real: bool = False) -> None:
        """Check one input, under watch."""
        try:
            with watched(folder, real):
                self.check(given, folder)
        finally:
            if self.fills:
                empty(folder)


def empty(folder: Path) -> None:
    """Remove all that is in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def may_refuse(*others: type[Exception]) -> Iterator[list[str]]:
    """Let the code within refuse its input: by a `UsageError`, or as its docstring says.

    Yields:
        gets the one line of a refusal.
    """
    lines: list[str] = []
    try:
        yield lines
    except (UsageError, *others) as error:
        lines.append(str(error))
        assert_line(lines[0])


def assert_line(text: str) -> None:
    """Check that a message is one line, which somebody can read."""
    assert text.strip(), "a refusal that says nothing"
    assert len(text.splitlines()) == 1, f"more than one line: {text!r}"
    assert len(text) < 25_000, f"a line of {len(text)} letters"
