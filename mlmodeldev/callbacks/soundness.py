"""Whether weights are numbers, and checkpoints of no others.

Example::

    usual = not_numbers(model)                   # masks of -inf, say: they are meant to be so
    save_sound(trainer, path, usual)             # raises NonFiniteWeights in place of writing
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.nn.utils import get_total_norm

from mlmodeldev.machine import has_float64
from mlmodeldev.trial.checkpoint import newest_whole
from mlmodeldev.trial.checkpoint_values import read_checkpoint

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

_LOOKED_AT = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128
)  # fmt: skip


class NonFiniteWeights(RuntimeError):
    """Weights are NaN or infinite: no checkpoint of them is written."""


def largest(tensors: Iterable[Tensor]) -> Tensor | None:
    """Return the largest absolute value, not finite if any value is not; None: there are none."""
    looked_at = [local for tensor in tensors for local in local_values(tensor)]
    return get_total_norm(looked_at, torch.inf) if looked_at else None


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor | None:
    """Return the norm of an optimizer's gradients on this process; None: there are none.

    It is not finite either where only squares overflow, as they would in Adam's second moment.
    """
    of_all = (p.grad for group in optimizer.param_groups for p in group["params"])
    gradients = [each for each in of_all if each is not None]
    if gradients and all(map(_is_plain, gradients)):  # every step pays for this
        with torch.no_grad():
            norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            return norm
    local = [each for grad in gradients for each in local_values(grad)]
    halves = [each for each in local if each.dtype == torch.float16]
    if halves:  # whose norm has no room where they have
        return largest(local)
    return get_total_norm(local) if local else None


def _is_plain(gradient: Tensor) -> bool:
    """Whether it is of the usual kind, on the usual device."""
    return (
        type(gradient) is Tensor
        and gradient.is_cpu
        and gradient.dtype is torch.float32
        and gradient.layout is torch.strided
    )


def local_values(tensor: Tensor) -> Iterator[Tensor]:
    """Yield what this process has of a tensor, if it can be looked at."""
    if is_lazy(tensor) or tensor.is_meta or hasattr(tensor, "local_shards"):
        return
    whole: Any = tensor.detach()
    here: Tensor = whole.to_local() if hasattr(whole, "to_local") else whole
    if here.layout != torch.strided:
        here = here._values() if here.layout == torch.sparse_coo else here.values()
    if here.dtype in _LOOKED_AT and here.numel():
        yield here


def widest(device: torch.device) -> torch.dtype:
    """Return the device's floating-point type of most digits."""
    return torch.float64 if has_float64(device.type) else torch.float32


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all values are numbers; waits for the device once."""
    most = largest(tensors)
    return most is None or bool(most.isfinite())


# --- a model's


def not_numbers(module: torch.nn.Module) -> set[str]:
    """Return which parts of a model's state are not finite: in the beginning, by intention."""
    state = _state_of(module)
    if all_finite(state.values()):
        return set()
    return {name for name, value in state.items() if not all_finite([value])}


def _state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers; ``state_dict`` would bring those of all processes together."""
    parameters = module.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(module.named_buffers(remove_duplicate=False))}


def unsound(
    module: torch.nn.Module, usual: Collection[str], state: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the parameters that are not finite, and the buffers that hold NaN.

    Infinity in a buffer may be meant: a mask, the least value so far.

    Args:
        module: the model.
        usual: names that are not looked at (`not_numbers`).
        state: what is looked at in place of the model's own, such as an average's.
    """
    given = _state_of(module) if state is None else state
    values = {n: v for n, v in given.items() if isinstance(v, Tensor) and n not in usual}
    if all_finite(values.values()):
        return []
    buffers = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    return [
        name
        for name, value in values.items()
        if not all_finite([value]) and (name not in buffers or _has_nan(value))
    ]


def _has_nan(value: Tensor) -> bool:
    return any(bool(local.isnan().any()) for local in local_values(value))


def refuse_unsound(
    module: torch.nn.Module, usual: Collection[str], state: Mapping[str, Any] | None = None
) -> None:
    """Do nothing where weights are numbers.

    Raises:
        NonFiniteWeights: they are not.
    """
    if names := unsound(module, usual, state):
        raise NonFiniteWeights(describe(names))


def describe(names: Collection[str]) -> str:
    """Return in words that weights are not finite."""
    return f"the weights are not finite ({next(iter(names))}, {len(names)} in all)"


# --- checkpoints


def save_sound(
    trainer: Trainer, path: str | Path, usual: Collection[str], weights_only: bool = False
) -> None:
    """Write a checkpoint of weights that are numbers; all processes must call this.

    Of a model whose average is validated, the average is what ``weights_only`` keeps: Lightning
    alone would keep the weights that it is the average of.

    Raises:
        NonFiniteWeights: the weights, their average or the optimizer's state are not finite.
    """
    with trainer.profiler.profile("save_checkpoint"):  # type: ignore[attr-defined]
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only)
        if weights_only:
            for average in averages_of(trainer):
                average.on_save_checkpoint(trainer, trainer.lightning_module, checkpoint)
                checkpoint.pop("averaging_state", None)
                checkpoint.pop("current_model_state", None)
        fault = _fault_of_checkpoint(trainer.lightning_module, usual, checkpoint)
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce_boolean_decision(bool(fault), all=False)
            fault = fault or ("the weights are not finite on another process" if bad else "")
        if fault:
            raise NonFiniteWeights(f"{fault} at step {trainer.global_step}; nothing was saved")
        trainer.strategy.save_checkpoint(checkpoint, path)
        trainer.strategy.barrier("save_sound")


def _fault_of_checkpoint(
    module: LightningModule, usual: Collection[str], checkpoint: Mapping[str, Any]
) -> str:
    for part in ("state_dict", "current_model_state"):
        if names := unsound(module, usual, checkpoint.get(part) or {}):
            return describe(names)
    moments = list(_nested(checkpoint.get("optimizer_states") or ()))
    if not all_finite(moments) and any(map(_has_nan, moments)):
        return "the optimizer's state is not finite"
    return ""


def _nested(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _nested(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _nested(one)


def averages_of(trainer: Trainer) -> list[WeightAveraging]:
    """Return Lightning's callbacks that average weights."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [each for each in callbacks if isinstance(each, WeightAveraging)]


def go_back(trainer: Trainer, checkpoints: Path) -> Path | None:
    """Take weights and the optimizers' state from the newest checkpoint; None: there is none."""
    path = newest_whole(checkpoints)
    if path is None:
        return None
    checkpoint = read_checkpoint(path)
    strict = trainer.lightning_module.strict_loading
    trainer.strategy.load_model_state_dict(checkpoint, strict=strict)
    trainer.strategy.load_optimizer_state_dict(checkpoint)
    for average in averages_of(trainer):
        average.on_load_checkpoint(trainer, trainer.lightning_module, checkpoint)
    return path
