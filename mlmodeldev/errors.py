"""The one error a user sees for bad input: a line, exit code 2, no traceback.

Example::

    raise UsageError("optimizer.lr=-1 is not allowed: it must be greater than 0")
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable

EXIT_BAD_INPUT = 2
"""Exit status for bad input (as argparse and the shell use it)."""

EXIT_INTERRUPTED = 75
"""Exit status of an interrupted trial: EX_TEMPFAIL of sysexits.h, "try again later"."""


class UsageError(Exception):
    """Bad input: what was given, where, what is allowed, the nearest right spelling.

    Entry points print the message on one line of standard error and exit with 2. It is one line
    whatever names and values it repeats: what is no letter for a screen is shown as an escape.
    """

    def __str__(self) -> str:
        """Return the message."""
        return shown_line(super().__str__())


class NothingBegun(UsageError):
    """Bad input that was noticed when the trial had a folder, and nothing in it to keep."""


class TrialInterrupted(Exception):
    """A trial stopped on a signal after saving its state; starting it again goes on from there."""


def shown_line(text: str) -> str:
    """Return a text as one line that a terminal shows as it is: no control characters.

    >>> shown_line("a\\nb")
    'a\\\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest allowed spelling, in any case, or ``""``.

    >>> nearest("lrr", ["lr", "weight_decay"])
    "; did you mean 'lr'?"
    >>> nearest("quite_other", ["lr"])
    ''
    """
    names = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def drop_output() -> None:
    """Print no more: the reader of a pipe (head, less) has seen enough.

    Without it the flush at exit would complain of the closed pipe.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
