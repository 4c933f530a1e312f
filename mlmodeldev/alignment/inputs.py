"""Models and their inputs for the shell: exported folders, checkpoints, arrays, text.

    model = open_model("runs/sweep/trial/best", None)
    for batch in read_batches(Path("probe.npz"), "runs/…/best", model, batch_size=64):
        run(model, batch)

Files of arrays: ``.npz`` and ``.safetensors`` hold one entry for each argument of the model's
forward (``pixel_values``, ``input_ids``, …), ``.npy`` its main input alone; samples come first.
``.txt`` holds a text a line, for each model's own tokenizer.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlmodeldev.alignment.loaded_models import freeze, load_model
from mlmodeldev.alignment.weights import is_weights_file
from mlmodeldev.errors import UsageError, nearest

SUFFIXES = (".npz", ".npy", ".safetensors", ".txt")


def open_model(name: str, class_path: str | None) -> nn.Module:
    """Load a frozen model: a transformers folder or Hub name, or a Lightning checkpoint.

    `class_path`, ``"module:Class"``, is the LightningModule of a ``.ckpt``.

    Raises `UsageError` if the model or the class is not found.
    """
    if not is_weights_file(name):
        return load_model(name)
    if class_path is None or ":" not in class_path:
        raise UsageError(f"{name} is a checkpoint: say --class module:Class, not {class_path!r}")
    if not Path(name).is_file():
        raise UsageError(f"there is no checkpoint {name}")
    module_name, _, class_name = class_path.partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--class {class_path}: {error}") from error
    model: nn.Module = kind.load_from_checkpoint(name, map_location="cpu", weights_only=True)
    return freeze(model)


def read_batches(
    path: Path,
    name: str,
    model: nn.Module,
    *,
    batch_size: int,
    samples: int | None = None,
    seed: int = 0,
) -> Iterator[dict[str, Tensor]]:
    """Yield batches of the file's samples in an order that depends on `seed` alone.

    A random order matters: batches of one class each say little of the whole (docs/alignment.md).

    Raises `UsageError` for unreadable files and entries that the model does not take.
    """
    entries = _entries(path, name, model)
    count = {len(value) for value in entries.values()}
    if len(count) != 1:
        sizes = {key: len(value) for key, value in entries.items()}
        raise UsageError(f"{path}: entries differ in their number of samples: {sizes}")
    order = np.random.default_rng(seed).permutation(count.pop())[:samples]
    for start in range(0, len(order), batch_size):
        chosen = torch.from_numpy(order[start : start + batch_size])
        yield {key: value[chosen] for key, value in entries.items()}


def run(model: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Run the model on a batch: by argument names, or the whole mapping for a LightningModule."""
    with torch.no_grad():
        if hasattr(model, "validation_step"):
            model(batch)
        else:
            model(**batch)


def _entries(path: Path, name: str, model: nn.Module) -> dict[str, Tensor]:
    if path.suffix not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise UsageError(f"--data {path}: the suffix must be one of {allowed}")
    if not path.is_file():
        raise UsageError(f"--data {path}: there is no such file")
    if path.suffix == ".txt":
        return _tokens(path, name, model)
    if path.suffix == ".npy":
        main = getattr(model, "main_input_name", "x")
        return {main: torch.from_numpy(np.load(path))}
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        entries = load_file(path)
    else:
        with np.load(path) as arrays:
            entries = {key: torch.from_numpy(arrays[key]) for key in arrays}
    return entries if hasattr(model, "validation_step") else _accepted(entries, path, model)


def _accepted(entries: Mapping[str, Tensor], path: Path, model: nn.Module) -> dict[str, Tensor]:
    parameters = inspect.signature(model.forward).parameters
    taken = {key: value for key, value in entries.items() if key in parameters}
    if not taken:
        given = next(iter(entries), "nothing")
        raise UsageError(
            f"{path} has {', '.join(entries) or 'no entries'}, none of which "
            f"{type(model).__name__} takes{nearest(given, parameters)}"
        )
    return taken


def _tokens(path: Path, name: str, model: nn.Module) -> dict[str, Tensor]:
    from transformers import AutoTokenizer

    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} has no tokenizer for the text in {path}") from error
    coded: Any = tokenizer(lines, padding=True, truncation=True, return_tensors="pt")
    return _accepted(coded, path, model)
