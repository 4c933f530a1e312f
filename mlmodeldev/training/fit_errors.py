"""What Lightning and torch raise in a fit and the settings can mend, in one line of ours.

Example::

    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    except Exception as error:
        refuse(error, trainer, checkpoint, way="artefacts.fresh=true begins anew")
        raise
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import NothingBegun, UsageError

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

_MISFITS = {
    "Error(s) in loading state_dict": "weights of another model",
    "loaded state dict has a different number of parameter groups": "another optimizer's state",
    "loaded state dict contains a parameter group": "the optimizer's state of other parameters",
}
"""What torch says of a checkpoint that does not fit, and in our words."""
_RESTORES = "checkpoint_connector.py"
"""Lightning's file that restores what a checkpoint holds."""
_INTERVAL = "val_check_interval"


def refuse(error: Exception, trainer: Trainer, checkpoint: Path | None, way: str) -> None:
    """Raise a line instead of an error that settings mend; return of any other.

    Args:
        error: that `Trainer.fit` has raised.
        trainer: whose fit it was.
        checkpoint: that was to be gone on from; None: there was none.
        way: what to do where it does not fit.

    Raises:
        UsageError: the checkpoint is of another model or optimizer, or ``val_check_interval`` does
            not fit the epoch's batches.
    """
    misfit = next((ours for text, ours in _MISFITS.items() if text in str(error)), None)
    if misfit and checkpoint is not None and _is_of_restoring(error):
        raise UsageError(f"{checkpoint}: holds {misfit} (was model.py changed?); {way}") from None
    if f"`{_INTERVAL}`" in str(error) or f"`Trainer({_INTERVAL})`" in str(error):
        kind = NothingBegun if checkpoint is None else UsageError
        raise kind(_misfit_of_interval(trainer)) from None


def _is_of_restoring(error: Exception) -> bool:
    """Whether it comes from restoring the checkpoint, not from code of the user's."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename.endswith(_RESTORES) for frame, _ in frames)


def _misfit_of_interval(trainer: Trainer) -> str:
    interval, batches = getattr(trainer, _INTERVAL), trainer.fit_loop.max_batches
    name = f"training.trainer.{_INTERVAL}={interval}"
    if isinstance(interval, float):
        return f"{name}: the training data have no length; give a number of batches, or 1.0"
    return (
        f"{name}: is more than the {batches} batches of an epoch; give at most {batches}, a part of"
        " the epoch (0.5), or, to validate more rarely, training.check_val_every_n_epoch"
    )
