"""A model from a folder or the Hub, and what of a batch its forward takes.

    model = load_model("runs/sweep/trial/best")         # frozen, with the random numbers as before
    run_model(model, None, batch)                       # by names, or by what a tensor looks like

A batch names its entries as its owner likes, so an argument that no entry is called after takes
the one entry that can be meant: pictures are the float tensor of four dimensions, tokens the
integer one of two.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from mlmodeldev.errors import UsageError

Module = TypeVar("Module", bound=nn.Module)

_LOOKS = {"pixel_values": (True, 4), "input_ids": (False, 2)}
"""By argument: whether its tensor is of floats, and how many dimensions it has."""


def load_model(name: str) -> nn.Module:
    """Load a frozen transformers model from a folder or the Hub, leaving the random state alone.

    Raises `UsageError` if there is none.
    """
    model, missing = read_model(name)
    if missing:
        warnings.warn(
            f"cka: {len(missing)} weights of {name!r} are not in its files and therefore random: "
            f"{', '.join(missing[:4])}",
            stacklevel=2,
        )
    frozen: nn.Module = freeze(model)
    return frozen


def read_model(name: str, whole: bool = False) -> tuple[nn.Module, list[str]]:
    """Load a transformers model from a folder or the Hub, leaving the random state alone.

    Args:
        name: the folder, or the Hub's name for it; its local cache answers without a network.
        whole: with the head that it was trained with, where it has one.

    Returns:
        the model, and the names of weights that are not in its files.

    Raises `UsageError` if there is none.
    """
    import transformers
    from safetensors import SafetensorError

    kind: Any = transformers.AutoModel
    try:
        with isolate_rng(), _quiet_transformers():
            if whole:
                config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
                named = getattr(transformers, next(iter(config.architectures or ()), ""), None)
                if transformers.PreTrainedModel in getattr(named, "__mro__", ()):
                    kind = named
            model, info = kind.from_pretrained(
                name, output_loading_info=True, trust_remote_code=False
            )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"no model could be loaded from {name!r}: {reason}") from error
    return model, sorted(info["missing_keys"])


def freeze(module: Module) -> Module:
    """Set eval mode and no gradient on a module that belongs to us; return it."""
    module.eval().requires_grad_(False)
    return module


def run_model(model: nn.Module, inputs: Mapping[str, str] | None, batch: Any) -> None:
    """Run a transformers model on the entries of `batch` that its forward takes.

    Args:
        inputs: argument names and the batch entries they take; default: entries of the same name,
            and for pictures and tokens the one tensor that looks like them.

    Raises `UsageError` if the batch has none of them, or the model can't take them.
    """
    name = type(model).__name__
    positional: tuple[Tensor, ...] = ()
    if isinstance(batch, Mapping):
        chosen = _arguments(model, inputs, batch)
    else:
        tensors = [part for part in _flat(batch) if isinstance(part, Tensor)]
        if not tensors:
            raise UsageError(f"cka: {name} can't be run on a batch without a tensor")
        main = getattr(model, "main_input_name", None)
        fitting = [part for part in tensors if main in _LOOKS and _looks_like(part, main)]
        positional, chosen = ((fitting or tensors)[0],), {}
    try:
        model(*positional, **chosen)
    except (ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in chosen.items())
        shapes = shapes or str(tuple(positional[0].shape))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"cka: {name} can't take this batch ({shapes}): {reason}") from error


def _arguments(
    model: nn.Module, inputs: Mapping[str, str] | None, batch: Mapping[str, Any]
) -> dict[str, Any]:
    names = list(inspect.signature(model.forward).parameters)
    chosen = dict(inputs) if inputs else {name: name for name in names if name in batch}
    if not inputs:
        if "input_ids" not in names:
            chosen.pop("attention_mask", None)  # it is of tokens that this model does not read
        chosen |= {
            name: entry
            for name in _LOOKS
            if name in names and name not in chosen and (entry := _look_alike(name, batch))
        }
    absent = [entry for entry in chosen.values() if entry not in batch]
    if not chosen or absent:
        raise UsageError(
            f"cka: {type(model).__name__} takes {', '.join(names[:4])}, … but the batch "
            f"has {', '.join(map(str, batch))}; map them with `inputs`"
        )
    return {argument: batch[entry] for argument, entry in chosen.items()}


def _look_alike(argument: str, batch: Mapping[str, Any]) -> str | None:
    """Return the one entry that can be meant by the argument; None if there is none, or several."""
    entries = [
        entry
        for entry, value in batch.items()
        if isinstance(value, Tensor) and _looks_like(value, argument)
    ]
    return entries[0] if len(entries) == 1 else None


def _looks_like(value: Tensor, argument: str) -> bool:
    is_float, dimensions = _LOOKS[argument]
    return value.is_floating_point() is is_float and value.ndim == dimensions


def _flat(batch: Any) -> Iterator[Any]:
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        for part in batch:
            yield from _flat(part)
    else:
        yield batch


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and reports: what matters of them is said in one line instead."""
    from transformers import utils

    logging: Any = utils.logging  # without types
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
