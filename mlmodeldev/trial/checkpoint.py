"""Recovery checkpoints on disk: their names, which is newest and undamaged, how many are kept.

Example::

    trainer.fit(model, ckpt_path=newest_whole(folder / "checkpoints"))
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

KEPT = 2
"""Recovery checkpoints kept: the newest, and the one before for when the newest is damaged."""

LOGGED = "mlmodeldev"
"""Key of a recovery checkpoint, of what `Logged` holds."""

_STEP = re.compile(r"step-([0-9]+)\.ckpt")
_FOLDER = 0x10  # MS-DOS's attribute, in the zip format's directory


def step_path(folder: Path, step: int) -> Path:
    """Return the name of the recovery checkpoint of an optimizer step."""
    return folder / f"step-{step:010d}.ckpt"


def recovery_checkpoints(folder: Path) -> list[Path]:
    """Return the recovery checkpoints in a folder, the newest first.

    Files alone, under the names that `step_path` gives: to open a pipe would wait for ever.
    """
    named = ((_STEP.fullmatch(path.name), path) for path in folder.glob("step-*.ckpt"))
    steps = [(int(match[1]), path) for match, path in named if match and path.is_file()]
    return [path for _, path in sorted(steps, reverse=True)]


def newest_whole(folder: Path) -> Path | None:
    """Return the newest recovery checkpoint that is undamaged, saying so when one is passed over.

    A torn file lacks the directory at its end; a corrupted one fails the checksums that the zip
    format keeps of each member, or torch's reader, if it is the directory that is damaged.
    """
    paths = recovery_checkpoints(folder)
    for path, before in zip_longest(paths, paths[1:]):
        if _is_whole(path):
            return path
        log.warning("%s is damaged; trying %s", path, before or "from the beginning")
    return None


class Logged(NamedTuple):
    """How far the loggers were when a recovery checkpoint was taken.

    Attributes:
        rows: that metrics.csv had; None: of a checkpoint of an earlier version.
        validation_due: whether a validation of the weights in it was yet to come.
        step: that the rows of the next batch have. Rows are numbered by Lightning's count of the
            batches that stepped, which by hand is not that of the optimizer steps. None: unclear.
    """

    rows: int | None = None
    validation_due: bool = False
    step: int | None = None


def logged_at(path: Path) -> Logged:
    """Return what a recovery checkpoint says under `LOGGED`."""
    from mlmodeldev.trial.checkpoint_values import read_checkpoint

    try:
        checkpoint = read_checkpoint(path, map_location="meta", mapped=True)
        logged = checkpoint.get(LOGGED, {})
        rows, validation_due = logged.get("rows"), logged.get("validation_due") is True
    except Exception:  # resuming from it will say what is the matter, if anything is
        return Logged()
    step: int | None = None
    with contextlib.suppress(LookupError, TypeError, ValueError):
        step = _next_step(checkpoint["loops"]["fit_loop"], validation_due)
    counted = isinstance(rows, int) and rows >= 0
    return Logged(rows if counted else None, validation_due, step)


def _next_step(fit_loop: Mapping[str, Any], validation_due: bool) -> int:
    """Return the step of the next batch's rows, from the progress of Lightning's loops.

    Lightning counts a batch when all that follows on it is over, its validation among that.
    """
    stepped = int(fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"])
    batches = fit_loop["epoch_loop.batch_progress"]["current"]
    within = validation_due or batches["processed"] > batches["completed"]
    return stepped + 1 if within else stepped


def _is_whole(path: Path) -> bool:
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            # torch takes a member marked as a folder for one, and hands out memory as it finds it
            folders = any(member.external_attr & _FOLDER for member in archive.infolist())
            if folders or archive.testzip() is not None:
                return False
        torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        return True  # whole, but holds what may not be loaded: resuming from it will say what
    except Exception:  # a single flipped bit makes these readers raise errors of many kinds
        return False
    return True


def prune(folder: Path, keep: int = KEPT) -> None:
    """Delete all but the newest recovery checkpoints."""
    for path in recovery_checkpoints(folder)[keep:]:
        path.unlink(missing_ok=True)
