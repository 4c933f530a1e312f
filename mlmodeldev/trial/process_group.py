"""The processes that a command has started and that are still there, in its process group.

A shell script without ``exec`` dies of a signal at once, and what it has started never hears of
it: a trial that would save its state is then an orphan. So whatever is left is told as well.

Example::

    signalled = set()
    while tell_orphans(group, signal.SIGTERM, signalled): ...
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def tell_orphans(group: int, number: int, signalled: set[int]) -> bool:
    """Send a signal, once, to the processes of a group whose parents are gone from it.

    Their own children are left to them, while they live: loaders, for instance, are not to end
    before a trial is saved.

    Args:
        group: its number.
        number: the signal's.
        signalled: the processes that got it before; those that get it now are added.

    Returns:
        Whether the group has a process that runs; one that has ended counts no more.
    """
    members = _members(group)
    for process, parent in members.items():
        if parent not in members and process not in signalled:
            signalled.add(process)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)
    return bool(members)


def _members(group: int) -> dict[int, int]:
    """Return the living processes of a group with their parents."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return {}  # most often: nothing to look for
    members = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # behind the name, which may hold blanks and brackets
            state, parent, of = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                members[int(folder.name)] = int(parent)
    return members
