"""A record's file whose owner may change while somebody writes: nobody is trusted to hold a lock.

A lock may be broken while its holder sleeps, may be granted to each node by itself, or goes with a
folder that is removed and made anew. So a writer makes its temporary file, then looks whether it
may write, then renames; who takes a record over writes it, then removes all other temporary files.
A write whose look came before that is done by then, or never will be.

Example::

    write_fenced(folder / "trial.json", record, check_owner)
    take(folder / "trial.json", seen, claimed)          # whether it is ours now
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import TEMPORARY_SUFFIX, atomic_write
from mlmodeldev.errors import UsageError


class _Changed(Exception):
    """The record is not the one that was looked at."""


def write_fenced(file: Path, record: Mapping[str, Any], check: Callable[[], object]) -> None:
    """Write a record, whole or not at all; what JSON has no word for becomes null.

    Args:
        file: the record's; its folder exists.
        record: all of it.
        check: raises where this process may not write.

    Raises:
        UsageError: it can't be written, or another has taken the record over meanwhile.
    """
    text = json.dumps(record, default=str)
    plain = json.loads(text, parse_constant=lambda _: None)
    with atomic_write(file, "w") as opened:
        check()
        opened.write(json.dumps(plain, indent=1) + "\n")


def take(
    file: Path,
    read: Callable[[], Mapping[str, Any]],
    seen: Mapping[str, Any],
    claimed: Mapping[str, Any],
) -> bool:
    """Write a new owner's record; return whether it stands.

    Of all who do so at once one is the last: it finds its own record when the others' writes have
    been ended. They find another's, or that theirs has failed.

    Args:
        file: the record's; its folder exists.
        read: returns the record as it is now.
        seen: what it was when it was found to be free.
        claimed: the new one; its ``token`` is nobody else's.

    Raises:
        UsageError: it can't be written.
    """

    def check() -> None:
        if read() != seen:
            raise _Changed

    try:
        write_fenced(file, claimed, check)
        for temporary in file.parent.glob(f".{file.name}.*{TEMPORARY_SUFFIX}"):
            temporary.unlink(missing_ok=True)
        return bool(read().get("token") == claimed["token"])
    except _Changed:
        return False
    except UsageError:
        if read() == seen:
            raise  # a full disk, or the like
        return False
