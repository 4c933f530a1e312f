"""Whether a job that is requeued again and again gets anywhere.

A trial whose start takes longer than its job has until the warning would come back for ever.

Example::

    if standing_still(submission.folder / "progress-1201_0.json", [folder_of_the_trial]):
        ...                              # the third start in a row without a step
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import write_json
from mlmodeldev.slurm.reconcile import ENDED
from mlmodeldev.trial.folder import read_record

STARTS = 3
"""Starts in a row without progress after which a job is given up."""
REASON = (
    f"{STARTS} starts in a row ended before a step was done: the time limit is too short for the"
    " start, or its warning comes too early"
)


def standing_still(note: Path, trials: Iterable[Path]) -> bool:
    """Write down how far the trials are; whether too many starts have brought none further.

    Args:
        note: a file of this job's own, kept from start to start.
        trials: their folders.
    """
    now = {folder.name: _reached(folder) for folder in trials}
    before = _read(note)
    moved = now != before.get("reached") and any(now.values())
    starts = 0 if moved else int(before.get("starts", 0)) + 1
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, {"reached": now, "starts": starts})
    return starts >= STARTS


def _reached(folder: Path) -> str:
    """Return the trial's end, or its newest checkpoint; empty before the first."""
    state = str(read_record(folder).get("state", ""))
    if state in ENDED or state == "failed":
        return state
    return max((file.name for file in (folder / "checkpoints").glob("step-*.ckpt")), default="")


def _read(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
