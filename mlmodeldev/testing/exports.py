"""Do ``best/`` and ``last/`` of a trial load back, with the weights that were trained?

Example::

    check("runs/single/whole")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.testing.isolated import CheckFailed

if TYPE_CHECKING:
    from torch import nn


def check(trial: str) -> None:
    """Fail unless both folders load, and hold what the checkpoints hold.

    Raises:
        CheckFailed: in a paragraph.
    """
    checkpoints = Path(trial) / "checkpoints"
    newest = max(checkpoints.glob("step-*.ckpt"))
    for name, checkpoint in (("best", checkpoints / "best.ckpt"), ("last", newest)):
        folder = Path(trial) / name
        if name == "best" and not checkpoint.is_file():
            continue  # nothing tells which weights are best
        if not folder.is_dir():
            raise CheckFailed(
                f"The trial has written no {name}/. Look whether callbacks.export.enabled is false."
            )
        _compare(name, _loaded(folder), checkpoint)


def _loaded(folder: Path) -> nn.Module:
    import mlmodeldev

    try:
        return mlmodeldev.load(folder)
    except (UsageError, RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise CheckFailed(
            f"{folder.name}/ does not load: {type(error).__name__}: {error}. The model is made"
            " anew from its constructor's arguments, then its weights are loaded; so the"
            " constructor alone must make every layer, of sizes that its arguments (or the data's"
            " `structure`) say. Layers that are made later (setup, on_fit_start, the first"
            " forward), or sized by a global or a file, are missing or of another shape then."
        ) from None


def _compare(name: str, model: nn.Module, checkpoint: Path) -> None:
    """Fail where the loaded model lacks weights of the checkpoint, or has others."""
    import torch

    from mlmodeldev.trial.checkpoint_values import read_checkpoint

    trained = read_checkpoint(checkpoint)["state_dict"]
    loaded = model.state_dict()
    missing = [key for key in trained if key not in loaded]
    other = [
        key
        for key, value in loaded.items()
        if not torch.equal(value.cpu(), trained.get(key, value))
    ]
    if missing or other:
        what = f"lacks {missing[0]}" if missing else f"has another {other[0]}"
        raise CheckFailed(
            f"The model that was loaded from {name}/ {what} than the one that was trained"
            f" ({len(missing)} missing, {len(other)} different). An `export` or `load` of the"
            " model's own must write and read every weight and buffer; without them all are"
            " written."
        )
