"""Recovery checkpoints on disk: their names, which is newest and undamaged, how many are kept.

Example::

    trainer.fit(model, ckpt_path=newest_whole(folder / "checkpoints"))
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from pathlib import Path

log = logging.getLogger(__name__)

KEPT = 2
"""Recovery checkpoints kept: the newest, and the one before for when the newest is damaged."""


def step_path(folder: Path, step: int) -> Path:
    """Return the name of the recovery checkpoint of an optimizer step."""
    return folder / f"step-{step:010d}.ckpt"


def newest_whole(folder: Path) -> Path | None:
    """Return the newest recovery checkpoint that is undamaged, saying so when one is passed over.

    A torn file lacks the directory at its end, a corrupted one fails the checksums that the zip
    format keeps of each member.
    """
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        if _is_whole(path):
            return path
        log.warning("%s is damaged; going on from the checkpoint before it", path)
    return None


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError):
        return False


def prune(folder: Path, keep: int = KEPT) -> None:
    """Delete all but the newest recovery checkpoints."""
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True)[keep:]:
        path.unlink(missing_ok=True)
