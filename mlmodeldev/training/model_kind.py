"""What kind of model and data these are, and what follows for the Trainer: said once, at the start.

Example::

    suit(trainer, model, settings)              # manual optimization: no automatic clipping
    if can_test(model, data): trainer.test(...)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden

from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.plain import taken_over
from mlmodeldev.errors import UsageError
from mlmodeldev.trial.checkpoint_values import LEFT_OUT

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from mlmodeldev.settings.schema import Settings

log = logging.getLogger(__name__)

_MANUAL = {"gradient_clip_val": None, "accumulate_grad_batches": 1}
"""What Lightning refuses where a model steps its optimizers itself, and the value that is left."""


def suit(trainer: Trainer, model: LightningModule, settings: Settings) -> None:
    """Take back defaults that a model with manual optimization can't have.

    Raises:
        UsageError: one of them was set on purpose.
    """
    if model.automatic_optimization:
        return
    for name, value in _MANUAL.items():
        if getattr(settings.training, name) == value:
            continue
        if f"training.{name}" in settings.overrides:
            raise UsageError(
                f"training.{name}={getattr(settings.training, name)}: {_name(model)} steps its"
                f" optimizers itself (automatic_optimization is False), and must do that, too;"
                f" {name}={'null' if value is None else value} leaves it to the model"
            )
        log.info("training.%s is left to %s, which steps its optimizers itself", name, _name(model))
        setattr(trainer, name, value)


def give_back_left_out(model: LightningModule) -> None:
    """Let a model that resumes find what its checkpoint could not hold, as it makes it anew."""
    save, load = model.on_save_checkpoint, model.on_load_checkpoint

    def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
        left_out = checkpoint.pop(LEFT_OUT, [])
        if left_out:
            fresh = dict(checkpoint)
            save(fresh)
            checkpoint.update({name: fresh[name] for name in left_out if name in fresh})
        load(checkpoint)

    if is_overridden("on_load_checkpoint", model, parent=LightningModule):
        model.on_load_checkpoint = on_load_checkpoint  # type: ignore[method-assign]


def can_validate(model: LightningModule, data: LightningDataModule) -> bool:
    """Whether there are a validation set and a ``validation_step``."""
    return is_overridden("validation_step", model, parent=LightningModule) and _has_val_set(data)


def _has_val_set(data: LightningDataModule) -> bool:
    taken = taken_over(data)
    return taken.gives("val") if taken else getattr(data, "val_set", None) is not None


def can_test(model: LightningModule, data: LightningDataModule) -> bool:
    """Whether there are a test set and a ``test_step``."""
    if not is_overridden("test_step", model, parent=LightningModule):
        return False
    if isinstance(data, ExactDataModule):
        return data.test_set is not None
    taken = taken_over(data)
    return taken is not None and taken.gives("test")


def log_what_is_left_out(
    model: LightningModule, data: LightningDataModule, settings: Settings
) -> None:
    """Log what a trial will not do since its classes have no part for it."""
    has_validation = is_overridden("validation_step", model, parent=LightningModule)
    if settings.training.limit_val_batches == 0:
        log.warning(
            "no validation: training.limit_val_batches is 0; best/ is judged by training, if %s is"
            " logged there",
            settings.training.monitor,
        )
    elif not can_validate(model, data):
        lack = "validation loader" if has_validation else "validation_step"
        log.warning(
            "no validation: %s has no %s; best/ is judged by training, if %s is logged there",
            _name(data) if has_validation else _name(model),
            lack,
            settings.training.monitor,
        )
    if settings.training.test and not can_test(model, data):
        no_step = not is_overridden("test_step", model, parent=LightningModule)
        log.warning(
            "no test at the end: %s has no %s",
            _name(model) if no_step else _name(data),
            "test_step" if no_step else "test loader",
        )


def _name(thing: Any) -> str:
    kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"
