"""Checkpoints that were dropped from a finished trial, and the line for who would need them.

The record says first what is dropped, then the files go, the oldest first: a kill at any moment
leaves a trial that goes on from the newest checkpoint, or says that it can't.

Example::

    drop(folder, record, files)                         # False: the trial has begun again
    refuse_without_checkpoints(folder, record)          # UsageError: its checkpoints were dropped
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import remove_at_once, write_json
from mlmodeldev.errors import UsageError
from mlmodeldev.synced import sync_folder
from mlmodeldev.trial.checkpoint import recovery_checkpoints
from mlmodeldev.trial.folder import TrialFolder

NOTE = "collected"
"""The record's entry: when, how many checkpoints, and their bytes."""


def drop(folder: Path, seen: Mapping[str, Any], paths: Sequence[Path]) -> bool:
    """Remove files and folders of a trial; return whether it was still as it was read.

    An attempt that begins meanwhile waits for this, or is seen, and then nothing is removed.

    Args:
        folder: the trial's.
        seen: its record, as it was when the files were chosen.
        paths: what is to go, in that order.

    Raises:
        UsageError: something can't be removed.
    """
    checkpoints = [path for path in paths if is_recovery_checkpoint(path)]
    if not (folder / "trial.json").is_file():
        return False  # moved aside: its lock would make the folder anew
    with TrialFolder(folder).unchanged(seen) as is_same:
        if not is_same:
            return False
        if checkpoints:
            write_json(folder / "trial.json", {**seen, NOTE: _note(seen, checkpoints)})
        for path in paths:
            try:
                remove_at_once(path)
            except OSError as error:
                raise UsageError(f"{path}: can't be removed ({error.strerror})") from error
        for parent in {path.parent for path in paths}:
            if parent.is_dir():
                sync_folder(parent)
    return True


def is_recovery_checkpoint(path: Path) -> bool:
    """Return whether a file is one that a trial goes on from, optimizer state and all."""
    return path.parent.name == "checkpoints" and path.match("step-*.ckpt")


def _note(seen: Mapping[str, Any], checkpoints: Sequence[Path]) -> dict[str, Any]:
    before = seen.get(NOTE) or {}
    there = [path.stat().st_size for path in checkpoints if path.is_file()]
    return {
        "at": time.time(),
        "checkpoints": int(before.get("checkpoints", 0)) + len(there),
        "bytes": int(before.get("bytes", 0)) + sum(there),
    }


def refuse_without_checkpoints(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuse to begin anew in silence what can't go on any more.

    Raises:
        UsageError: the trial has no checkpoint, for `drop` has removed the last one.
    """
    note = record.get(NOTE)
    if not note or recovery_checkpoints(folder / "checkpoints"):
        return
    day = time.strftime("%Y-%m-%d", time.localtime(float(note.get("at", 0))))
    raise UsageError(
        f"{folder}: can't go on from epoch {record.get('epoch', 0)}, its checkpoints were dropped"
        f" on {day} (mlmodeldev trial gc); best/ and last/ are there, artefacts.fresh=true begins"
        " anew"
    )
