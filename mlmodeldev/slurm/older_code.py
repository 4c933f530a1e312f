"""Trials that ran with older code than the present one: which they are, and how they run anew.

A sweep's results belong to the code that they were made with, so no edit retrains a trial by
itself: ``status`` marks it, and ``retry --changed`` runs it anew, its old folder kept aside.

Example::

    entries = [entry for entry in sweep_state.entries if older_code(entry)]
    move_aside(entries)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmodeldev.project import project_root
from mlmodeldev.slurm.trial_entries import ENDED
from mlmodeldev.trial.checkpoint import recovery_checkpoints
from mlmodeldev.trial.code import changed_files
from mlmodeldev.trial.folder import TrialFolder

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.slurm.trial_entries import TrialEntry


def older_code(entry: TrialEntry) -> list[str]:
    """Return the files of a trial's code that are others now; none of a trial that never ran."""
    return changed_files(entry.record, project_root())


def to_run_anew(entries: Iterable[TrialEntry], states: Sequence[str]) -> list[TrialEntry]:
    """Return the trials of older code that nothing runs now.

    Args:
        states: of the entries, as `slurm.plan.state` tells them.
    """
    pairs = zip(entries, states, strict=True)
    return [e for e, state in pairs if state not in ("running", "queued") and older_code(e)]


def begun_anew(sweep_state: SweepState, entries: Sequence[TrialEntry]) -> SweepState:
    """Return the sweep as it stands once these trials' folders are aside."""
    ids = {entry.trial.id for entry in entries}
    all_entries = [replace(e, anew=e.trial.id in ids) for e in sweep_state.entries]
    return replace(sweep_state, entries=all_entries)


def move_aside(entries: Iterable[TrialEntry]) -> None:
    """Give the trials' folders hidden names, and say which.

    Raises:
        UsageError: a live process owns one.
    """
    for entry in entries:
        if entry.folder.is_dir():
            aside = TrialFolder(entry.folder).move_aside()
            print(f"{entry.trial.id}: the former is {aside}", file=sys.stderr)


def print_interrupted(entries: Iterable[TrialEntry], policy: str) -> None:
    """Say which trials would be refused, because they are to go on with other code."""
    if policy != "refuse":
        return
    wait = [
        entry.trial.id
        for entry in entries
        if entry.record  # of most there may be no folder
        and entry.state not in ENDED
        and recovery_checkpoints(entry.folder / "checkpoints")
        and older_code(entry)
    ]
    if wait:
        print(
            f"begun with older code: {', '.join(wait[:5])}{', ...' if len(wait) > 5 else ''};"
            " artefacts.changed_code=continue|fresh says how to go on",
            file=sys.stderr,
        )
