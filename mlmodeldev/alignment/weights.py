"""Weights as plain tensors: of a module, in a file, and back into a module.

save_weights(weights_of(module), Path("start.safetensors"))
load_weights(module, Path("start.safetensors"))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mlmodeldev.atomic import atomic_path
from mlmodeldev.errors import UsageError
from mlmodeldev.trial.checkpoint_values import read_weights


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
