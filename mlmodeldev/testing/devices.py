"""Does all that a forward needs move with the model, and does the code name no device?

Parts of the model run again on torch's ``meta`` device, which has shapes only: what stays behind on
the CPU is noticed there as it would be on a GPU. No GPU is needed.

Example::

    check(["model=mine"])
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlmodeldev.testing.isolated import CheckFailed
from mlmodeldev.testing.observer import Observer, validate

_MIXED = re.compile(r"same device|two devices|different devices|expected device|meta and cpu")
"""What torch says where tensors of two devices meet."""


def check(overrides: Sequence[str]) -> None:
    """Fail where validation names a GPU, or needs a tensor that does not move with the model.

    Raises:
        CheckFailed: naming the module.
        unittest.SkipTest: there is nothing to look at.
    """
    import torch

    from mlmodeldev.settings.composition import compose_settings

    settings = compose_settings([*overrides, "training.accelerator=cpu"])
    observer = Observer()
    with _refusing_gpus():
        model = validate(settings, observer, lambda batch, _: [batch])
    model.eval()
    for name, (module, args, kwargs) in observer.calls.items():
        try:
            with torch.no_grad():
                copy.deepcopy(module).to("meta")(*_moved(args), **_moved(kwargs))
        except Exception as error:  # meta can't do all that a CPU can: only this says something
            if _MIXED.search(str(error)):
                raise CheckFailed(_left_behind(name, error)) from None


def _left_behind(name: str, error: Exception) -> str:
    return (
        f"On another device, {name} meets a tensor that stays on the CPU ({error}). A tensor that"
        " is kept as an attribute does not move: register_buffer('name', tensor) does."
        " One that is made in forward needs the device of its input: torch.zeros(n,"
        " device=x.device), or x.new_zeros(n)."
    )


def _moved(value: Any) -> Any:
    """Return arguments with their tensors on the meta device."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("meta")
    if isinstance(value, Mapping):
        return {name: _moved(each) for name, each in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_moved(each) for each in value)
    return value


def _refusing_gpus() -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    class Refusing(TorchFunctionMode):
        """Refuses calls that name a GPU where training.accelerator=cpu."""

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            places = [kwargs.get("device"), *(args[1:] if func is torch.Tensor.to else ())]
            if func is torch.Tensor.cuda or any(_is_gpu(place) for place in places):
                raise CheckFailed(
                    "The code names a GPU where training.accelerator=cpu: it calls .cuda(), or"
                    " gives 'cuda' to .to() or as device=. Lightning moves model and batch;"
                    " tensors that the code makes take self.device or the device of an input"
                    " (x.device)."
                )
            return func(*args, **kwargs)

    return Refusing()


def _is_gpu(place: Any) -> bool:
    return str(place).startswith("cuda") if place is not None else False
