"""Checkpoints that are written whole or not at all.

Lightning's own saving writes to a temporary folder and copies across file systems, which leaves a
torn file when killed (Lightning issue 21253). Here a checkpoint is written beside its final name,
synced and renamed.

Example::

    Trainer(plugins=[AtomicCheckpointIO()], ...)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from mlmodeldev.trial.files import whole_file, writing_to


class AtomicCheckpointIO(CheckpointIO):
    """Save by temporary file, fsync and rename; load with ``weights_only``."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint whole.

        Raises:
            UsageError: the disk is full, or the place can't be written.
        """
        path = Path(path)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:
                    # torch's zip writer reports a full disk as a RuntimeError of its own making
                    if isinstance(error.__context__, OSError):
                        raise error.__context__ from None
                    raise

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint without running code from it (``weights_only``), to the CPU."""
        loaded: dict[str, Any] = torch.load(
            path, map_location=map_location or "cpu", weights_only=True
        )
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)
