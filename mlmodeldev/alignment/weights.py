"""Weights as plain tensors: of a module, in a file, and back into a module.

save_weights(weights_of(module), Path("start.safetensors"))
load_weights(module, Path("start.safetensors"))
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mlmodeldev.atomic import atomic_path
from mlmodeldev.errors import UsageError
from mlmodeldev.trial.checkpoint_values import read_checkpoint


def is_weights_file(name: str) -> bool:
    """Whether `name` is a file of weights rather than a folder or a Hub name."""
    return Path(name).suffix in (".ckpt", ".pt", ".safetensors")


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of `state_dict` as copies on the CPU."""
    with torch.inference_mode(False):
        return {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in module.state_dict().items()
            if isinstance(value, Tensor)
        }


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file(dict(weights), temporary)


def load_weights(module: nn.Module, source: Path | Mapping[str, Tensor]) -> None:
    """Put weights (.safetensors, a Lightning .ckpt, or tensors) into `module`.

    Raises `UsageError` if the file cannot be read or does not fit the module.
    """
    weights = read_weights(source) if isinstance(source, Path) else source
    tensors = {name for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    missing = sorted(tensors - set(weights))
    try:
        with torch.no_grad():
            wrong = missing or module.load_state_dict(dict(weights), strict=False).unexpected_keys
    except RuntimeError as error:  # shapes differ: torch lists them, one a line
        wrong = [str(error).splitlines()[-1].strip()]
    if wrong:
        origin = source if isinstance(source, Path) else "the weights"
        raise UsageError(f"{origin} does not fit {type(module).__name__}: {wrong[0]}")


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Return the weights in a file (.safetensors, or what torch has written) by their names.

    Raises `UsageError` if it cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        saved = read_checkpoint(path)
    except Exception as error:  # torch's readers raise errors of many kinds
        raise UsageError(f"the weights in {path} cannot be read: {_reason(error, path)}") from error
    if not isinstance(saved, Mapping):
        kind = type(saved).__name__
        raise UsageError(f"the weights in {path} cannot be read: it holds a {kind}, not weights")
    weights: Mapping[str, Tensor] = saved.get("state_dict", saved)
    return weights


def _reason(error: Exception, path: Path) -> str:
    """Return why a file can't be read, where torch's own words would mislead or say nothing."""
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than weights, or is no file of torch's; nothing of it was run"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
