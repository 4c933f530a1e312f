"""A sweep file that was edited after its trials had been submitted: said, and what follows.

Example::

    changes.tell(known, "status")
    # sweep/config.yaml has changed since it was submitted: 1 trial added (gtsqtqg3), none removed;
    # submit runs what was added
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.submission import Submission, submissions

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import Declared

_SHOWN = 5
_THEN = {
    "status": "submit runs what was added, submit --prune ends what was removed",
    "retry": "retry runs failed trials that are still declared, submit what was added",
    "submit": "what was added runs now, what was removed is left alone (--prune ends it)",
}


@dataclass(frozen=True)
class Change:
    """Trials that the file declares now and did not when it was submitted, and the reverse."""

    added: list[str]
    removed: list[str]


def change(known: Declared) -> Change | None:
    """Return how the declared trials differ from those last submitted; None where they don't.

    A search declares no list: both lists are empty when its file has changed.
    """
    last = _last(known)
    if last is None or last.sweep_file.read_bytes() == known.file.read_bytes():
        return None
    if known.sweep.method == "bayes":
        return Change([], [])
    before = _declared(last, known)
    now = [entry.trial.id for entry in known.entries]
    added = [trial for trial in now if trial not in before]
    removed = [trial for trial in before if trial not in set(now)]
    return Change(added, removed) if added or removed else None


def tell(known: Declared, command: str) -> Change | None:
    """Say in one sentence what has changed, and what a command does about it.

    Args:
        command: ``status``, ``retry`` or ``submit``.
    """
    found = change(known)
    if found is None:
        return None
    if known.sweep.method == "bayes":
        what = "workers in the queue keep the space that they were submitted with, new ones take"
        what += " this one"
    else:
        added, removed = _named(found.added, "added"), _named(found.removed, "removed")
        what = f"{added}, {removed}; {_THEN[command]}"
    print(f"{known.file} has changed since it was submitted: {what}", file=sys.stderr)
    return found


def _last(known: Declared) -> Submission | None:
    made = [s for s in submissions(known.folder) if s.sweep_file.is_file()]
    return made[-1] if made else None


def _declared(last: Submission, known: Declared) -> dict[str, None]:
    """Return what the file declared then; asked as now, so that only the file can differ."""
    from mlmodeldev.sweep import load

    try:
        trials = load(last.sweep_file).trials(known.count, known.seed)
        return dict.fromkeys(trial.id for trial in trials)
    except UsageError:  # written by another version
        return dict.fromkeys(trial for _, trials in last.tasks() for trial in trials)


def _named(trials: Collection[str], how: str) -> str:
    if not trials:
        return f"none {how}"
    names = ", ".join(list(trials)[:_SHOWN]) + (", ..." if len(trials) > _SHOWN else "")
    return f"{len(trials)} trial{'s' if len(trials) > 1 else ''} {how} ({names})"
