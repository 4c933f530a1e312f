"""What training changes in the Trainer and the model beside weights belongs to the checkpoint.

Lightning's checkpoints leave it out: how many batches are accumulated now, which parameters are
frozen, which parts are in eval mode, gradients that wait for their step. An undisturbed trial
changes it as its epochs begin; one that resumes later never comes to that place again. So it gets
what was changed since the training began, and no more: what the code itself decides at each start
(a part that is frozen from the first epoch on) stays the code's.

Example::

    Trainer(callbacks=[TrainingStates()], ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from mlmodeldev.callbacks.of_ranks import gather, own_part

_ACCUMULATION, _TRAINED, _MODE, _STATISTICS = (
    *("accumulate_grad_batches", "requires_grad"),
    *("training", "track_running_stats"),
)


class TrainingStates(Callback):
    """Save and restore what training has changed.

    It restores in the first hook after all of ``on_train_start``, which at each start do the same;
    as an early callback, before others act in that hook.
    """

    def __init__(self) -> None:
        self._saved: dict[str, Any] = {}
        self._at_start: dict[str, dict[str, Any]] = {}
        self._trainer: Trainer | None = None
        self._model: LightningModule | None = None

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "TrainingStates"

    def state_dict(self) -> dict[str, Any]:
        trainer, model = self._trainer, self._model
        if trainer is None or model is None or not self._at_start:
            return {}
        return {
            "changed": _changed(_states_of(trainer, model), self._at_start),
            "gradients": gather(trainer, _gradients_of(model)) if _step_waits(trainer) else {},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer, self._model = trainer, pl_module

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._begin(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._begin(trainer, pl_module)
        # each call of a hook costs time, and one that is no function is not called
        self.on_train_batch_start = None  # type: ignore[method-assign, assignment]

    def _begin(self, trainer: Trainer, module: LightningModule) -> None:
        if self._at_start:
            return
        self._at_start = _states_of(trainer, module)
        saved, self._saved = self._saved, {}
        _restore(trainer, module, saved.get("changed", {}))
        _put_back(module, own_part(trainer, saved.get("gradients", {})) or {})


# --- what is changed by assignment


def _states_of(trainer: Trainer, module: LightningModule) -> dict[str, dict[str, Any]]:
    """Return the values of what training may change, by kind and by the part's name."""
    parts = dict(module.named_modules())
    return {
        _ACCUMULATION: {"": trainer.accumulate_grad_batches},
        _TRAINED: {name: each.requires_grad for name, each in module.named_parameters()},
        _MODE: _modes(trainer) or {name: part.training for name, part in parts.items()},
        _STATISTICS: {
            name: part.track_running_stats
            for name, part in parts.items()
            if isinstance(getattr(part, _STATISTICS, None), bool)
        },
    }


def _changed(
    now: Mapping[str, Mapping[str, Any]], at_start: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return what differs; of a part that is new since the start there is nothing to say."""
    return {
        kind: {name: v for name, v in values.items() if at_start[kind].get(name, v) != v}
        for kind, values in now.items()
    }


def _modes(trainer: Trainer) -> dict[str, bool]:
    """Return the modes that a validation, which is under way, will put back; else nothing."""
    return trainer.fit_loop.epoch_loop.val_loop._module_mode.mode if trainer.validating else {}


def _restore(
    trainer: Trainer, module: LightningModule, changed: Mapping[str, Mapping[str, Any]]
) -> None:
    """Set what was changed, of the parts that there still are."""
    parts, modes = dict(module.named_modules()), _modes(trainer)
    for value in changed.get(_ACCUMULATION, {}).values():
        trainer.accumulate_grad_batches = value
    parameters = dict(module.named_parameters())
    for name, value in changed.get(_TRAINED, {}).items():
        if name in parameters:
            parameters[name].requires_grad_(value)
    for name, value in changed.get(_MODE, {}).items():
        if name in modes:
            modes[name] = value
        elif name in parts:
            parts[name].training = value
    for name, value in changed.get(_STATISTICS, {}).items():
        if hasattr(parts.get(name), _STATISTICS):
            setattr(parts[name], _STATISTICS, value)


# --- gradients


def _step_waits(trainer: Trainer) -> bool:
    """Whether the next step may need gradients that are there.

    By hand any may be needed: only the module knows when it steps. Otherwise a step was taken where
    there is a checkpoint, unless it is one of a validation between two batches of one step.
    """
    by_hand = not trainer.lightning_module.automatic_optimization
    return by_hand or (trainer.validating and trainer.fit_loop._should_accumulate())


def _gradients_of(module: LightningModule) -> dict[str, Tensor | None]:
    """Return the gradients by the parameters' names, on the CPU; None for one of zeros."""
    return {
        name: each.grad.detach().cpu().clone() if _has_values(each.grad) else None
        for name, each in module.named_parameters()
        if each.grad is not None
    }


def _has_values(gradient: Tensor) -> bool:
    return gradient.is_sparse or bool(gradient.any())


def _put_back(module: LightningModule, gradients: Mapping[str, Tensor | None]) -> None:
    parameters = dict(module.named_parameters())
    for name, value in gradients.items():
        parameter = parameters.get(name)
        if parameter is not None and (value is None or value.shape == parameter.shape):
            zeros = torch.zeros_like(parameter) if value is None else value
            parameter.grad = zeros.to(parameter.device, parameter.dtype)
