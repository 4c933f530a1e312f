"""The files of an export that any model gets: its weights, what makes it again, a model card.

Example::

    write_weights(module, folder)                      # model.safetensors
    write_config("model.Net", {"width": 64}, folder)   # config.json
    write_card(folder, state, record)                  # README.md

`mlmodeldev.training.load` reads them.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import mlmodeldev
from mlmodeldev.atomic import write_json
from mlmodeldev.callbacks.onnx_card import onnx_section
from mlmodeldev.secrets import mask
from mlmodeldev.settings.identity import says_where

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
ARGUMENTS = "arguments.pt"
"""Beside config.json: the arguments that JSON would change (tensors, tuples, keys of numbers)."""
ARRAY = "numpy"
"""Marks in that file a tensor that was an array."""
EXTRA = "extra_state.pt"
"""What a module's `get_extra_state` gives, which is no tensor."""

_LIBRARIES = ("torch", "pytorch-lightning", "safetensors")


def write_weights(module: nn.Module, folder: Path) -> None:
    """Write parameters and buffers; of tensors that share their memory one, and who shares it.

    The names of those left out are in the file's metadata, as safetensors' own `save_model` has
    them. Parameters that were never used, and so have no shape yet, are left out, too.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    others: dict[str, Any] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            others[name] = value
        elif not torch.nn.parameter.is_lazy(value):
            place = first.setdefault(_memory(value, name), name)
            if place != name:
                shared[name] = place
            else:
                tensors[name] = value.detach().cpu().contiguous().clone()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", **shared})
    if others:
        torch.save(others, folder / EXTRA)


def _memory(value: Tensor, name: str) -> tuple[Any, ...]:
    if not value.numel():
        return (name,)
    where = (value.untyped_storage().data_ptr(), value.storage_offset())
    return (*where, value.dtype, value.shape, value.stride())


def write_config(target: str, arguments: Mapping[str, Any], folder: Path) -> None:
    """Write the class and its arguments; what can't be written down is named."""
    plain: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    not_stored: dict[str, str] = {}
    for name, value in arguments.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            kept[name] = (ARRAY, torch.from_numpy(value.copy()))
        elif _survives_json(value):
            plain[name] = value
        elif _survives_pickle(value):
            kept[name] = value
        else:
            not_stored[name] = type(value).__name__
    if kept:
        torch.save(kept, folder / ARGUMENTS)
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    content = {
        "class": target,
        "arguments": plain,
        "arguments_not_stored": not_stored,
        "library": {"mlmodeldev": mlmodeldev.__version__, **versions},
    }
    write_json(folder / CONFIG, content)


def _survives_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: tensors have no truth value
        return False


def _survives_pickle(value: Any) -> bool:
    """Whether torch reads it back without running code from the file."""
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (pickle.PickleError, RuntimeError, TypeError, AttributeError):
        return False
    return True


def write_card(folder: Path, state: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Write what the model is, what it was trained on, how well, and by what code.

    Args:
        folder: the export's; a card that the model has written itself is left alone.
        state: what ``training_state.json`` holds.
        record: the trial's ``trial.json``.
    """
    if (folder / CARD).exists():
        return
    settings = state.get("settings") or {}
    model, data = (str((settings.get(g) or {}).get("_target_")) for g in ("model", "data"))
    metric = state["metric"]
    value = "none" if metric["value"] is None else f"{metric['value']:.6g}"
    commit = record.get("sha") or "none"
    commit += " (with changes: changes.diff of the trial)" if record.get("dirty") else ""
    facts = {
        "Model": f"`{model}`",
        "Data": f"`{data}`{_inputs(record)}",
        "Metric": f"{metric['name']} {value} (best, epoch {metric['epoch']})",
        "Trained": f"{state['epoch']} epochs, {state['step']} steps, seed {state.get('seed')}",
        "Trial": f"{record.get('sweep')}/{record.get('id')}",
        "Commit": commit,
        **_began_with(record.get("parent") or {}),
    }
    overrides = settings.get("overrides") or {}
    chosen = {n: v for n, v in overrides.items() if not says_where(n) and n != "logger"}
    text = _CARD.format(
        title=model.rpartition(".")[2],
        facts="\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
        settings="\n".join(f"{n}: {json.dumps(v, default=str)}" for n, v in chosen.items()) or "{}",
    ) + onnx_section(state.get("onnx"))
    (folder / CARD).write_text(mask(text), encoding="utf-8")


def is_ours(card: Path) -> bool:
    """Whether a model card was written by `write_card`, not by the model itself."""
    try:
        return "library_name: mlmodeldev" in card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


_CARD = """\
---
library_name: mlmodeldev
tags:
- pytorch
- lightning
---
# {title}

{facts}

Settings beyond the defaults (all are in training_state.json):

```yaml
{settings}
```

```python
import mlmodeldev

model = mlmodeldev.load("path/of/this/folder")  # in eval mode, on the CPU
```
"""


def _began_with(parent: Mapping[str, Any]) -> dict[str, str]:
    """Return a line on the trial or the weights that the model began with, if it did."""
    if not parent:
        return {}
    trial = f"{parent['sweep']}/{parent['trial']}, " if "trial" in parent else ""
    version = str(parent.get("sha256") or parent.get("revision"))[:12]
    how = {"continue_from": "Continues", "init_from": "Initial weights"}[parent["how"]]
    return {how: f"{trial}{Path(parent['file']).name} {version}"}


def _inputs(record: Mapping[str, Any]) -> str:
    inputs = (record.get("data") or {}).get("inputs") or {}
    listed = ", ".join(
        f"{Path(name).name} {str(digest)[:12]}" for name, digest in list(inputs.items())[:5]
    )
    return f" ({listed})" if listed else ""
