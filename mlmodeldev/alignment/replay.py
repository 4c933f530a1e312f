"""A copy of a LightningModule that validates a batch as the live one did, unnoticed by the run.

    twin = copy_of(module)
    moment = Moment.of(module, batch, batch_idx)              # before the live validation_step
    trainer = QuietTrainer(live_trainer, twin)
    validate_as_then(twin, trainer, moment)

A module may have a forward that takes anything, or none; what surely runs is the `validation_step`
that Lightning has just called, so the copy runs that, on the batch as it was given, with the random
numbers and the plain attributes of that moment. What it logs goes nowhere; its buffers, metrics and
attributes are afterwards what they were. What the step does outside of the module and its trainer
(prints, files, a tracker's own functions) happens once more.
"""

from __future__ import annotations

import copy
import inspect
import random
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torchmetrics import Metric

from mlmodeldev.alignment.loaded_models import freeze
from mlmodeldev.errors import UsageError

_OF_LIGHTNING = frozenset(vars(LightningModule())) - {"training"}
"""Attributes of every module, which are not its author's; the mode is as the author wants it."""
_PLAIN = (int, float, complex, str, bytes, type(None), np.ndarray, np.generic, Tensor, torch.dtype)
_CONTAINERS = (list, tuple, set, deque)


@dataclass(frozen=True)
class Moment:
    """What the live model was given for a batch of the first validation loader, and its state then.

    Attributes:
        batch: as it was before the live step, which may change it.
        batch_idx: its number.
        attributes: plain data (numbers, tensors, containers of them) by module and name.
        random: states of all generators.
    """

    batch: Any
    batch_idx: int
    attributes: Mapping[str, Mapping[str, Any]]
    random: RandomStates

    @classmethod
    def of(cls, module: LightningModule, batch: Any, batch_idx: int) -> Moment:
        """Note it; nothing of the module or the batch is shared with what is returned."""
        return cls(fresh(batch), batch_idx, _attributes(module), RandomStates.now())


@dataclass(frozen=True)
class RandomStates:
    """The states of Python's, numpy's and torch's global generators, on the CPU and GPUs in use."""

    python: Any
    numpy: Any
    torch: Tensor
    gpus: list[Tensor]

    @classmethod
    def now(cls) -> RandomStates:
        """Read them."""
        cuda: Any = torch.cuda  # partly without types
        gpus = cuda.get_rng_state_all() if cuda.is_initialized() else []
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), gpus)

    def set(self) -> None:
        """Make the generators go on from here."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.gpus:
            torch.cuda.set_rng_state_all(self.gpus)


@contextmanager
def random_numbers_of(states: RandomStates) -> Iterator[None]:
    """Draw from these states, and leave the generators as they were."""
    before = RandomStates.now()
    states.set()
    try:
        yield
    finally:
        before.set()


class QuietTrainer:
    """The live Trainer to a copy: all of it can be read, but loggers and metrics take nothing."""

    def __init__(self, live: Trainer, module: LightningModule) -> None:
        self._live = live
        self.lightning_module = self.model = module
        self.loggers = [DummyLogger()] if live.loggers else []
        self.logger = self.loggers[0] if self.loggers else None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._live, name)
        return dict(value) if name.endswith("_metrics") and isinstance(value, Mapping) else value


def copy_of(module: LightningModule) -> LightningModule:
    """Return a frozen copy in eval mode, without the trainer, whose `log` does nothing.

    Attributes that can't be copied (a lock, an open file) are shared with the live module.

    Raises `UsageError` if the module as a whole can't be copied.
    """
    try:
        twin = _copied(module)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"cka: {type(module).__name__} can't be copied to be compared with ({reason}); "
            "`against: self` needs no copy"
        ) from error
    for part in twin.modules():
        if isinstance(part, LightningModule):
            part.log = part.log_dict = part.print = _ignore  # type: ignore[method-assign]
    return freeze(twin)


def validate_as_then(reference: LightningModule, trainer: QuietTrainer, moment: Moment) -> None:
    """Run a copy's `validation_step` as the live model's was run at `moment`.

    Raises `UsageError` if the step fails on the copy, although it did not on the live model.
    """
    for name, part in reference.named_modules():
        vars(part).update(fresh(dict(moment.attributes.get(name, {}))))
    trainer_of: Any = reference
    trainer_of.trainer = trainer
    step: Callable[..., Any] = reference.validation_step
    arguments = [fresh(moment.batch)]
    if is_param_in_hook_signature(step, "batch_idx", min_args=2):
        arguments.append(moment.batch_idx)
    if "dataloader_idx" in inspect.signature(step).parameters:
        arguments.append(0)
    try:
        with _as_before(reference), random_numbers_of(moment.random), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the live model has given them for this batch
            step(*arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"cka: validation_step of {type(reference).__name__} fails on a copy of it: {reason}"
        ) from error
    finally:
        trainer_of.trainer = None


def fresh(value: Any) -> Any:
    """Return a copy of a batch or of plain data that shares no tensor with it."""
    try:
        return copy.deepcopy(value)
    except Exception:  # such as tensors that belong to a graph
        return apply_to_collection(value, (Tensor, np.ndarray), _cloned)


@contextmanager
def _as_before(reference: nn.Module) -> Iterator[None]:
    """Take back what a step does to buffers and metrics of a copy: they belong to its weights."""
    buffers = [
        (part, name, value, value.clone())
        for part in reference.modules()
        if not isinstance(part, Metric)
        for name, value in part.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for part, name, value, kept in buffers:
                part._buffers[name] = value.copy_(kept)
        for part in reference.modules():
            if isinstance(part, Metric):
                part.reset()


def _attributes(module: LightningModule) -> dict[str, dict[str, Any]]:
    """Return each module's plain data: a start's copy lacks what training or a hook has set."""
    return {
        name: fresh(
            {
                key: value
                for key, value in vars(part).items()
                if key not in _OF_LIGHTNING and _is_plain(value)
            }
        )
        for name, part in module.named_modules()
        if not isinstance(part, Metric)
    }


def _is_plain(value: Any) -> bool:
    """Whether it is data alone: a list of layers would put the live ones into the copy."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(map(_is_plain, value.values()))
    if isinstance(value, _CONTAINERS):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN) and not isinstance(value, nn.Parameter)


def _copied(module: LightningModule) -> LightningModule:
    try:
        return copy.deepcopy(module)
    except Exception:
        memo = {
            id(value): _shared(value)
            for part in module.modules()
            for key, value in vars(part).items()
            if key not in _OF_LIGHTNING and not _can_be_copied(value)
        }
        return copy.deepcopy(module, memo)


def _shared(value: Any) -> Any:
    """Tensors that belong to a graph are copied without it; the rest is used as it is."""
    return apply_to_collection(value, Tensor, _cloned)


def _can_be_copied(value: Any) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True


def _cloned(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value.copy()


def _ignore(*_args: Any, **_kwargs: Any) -> None:
    return None
