"""Run any model on an example from a file: what inference.py does without a `predict`.

Example::

    example = read_example("digit.npy")          # .pt, .npy, .json, or JSON on the command line
    answer = run_example(model, example)         # lists of numbers, as JSON takes them

An example is one item as the data give it; the model gets a batch of one, and the answer is of its
one row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from mlmodeldev.callbacks.export import inference_of
from mlmodeldev.errors import UsageError
from mlmodeldev.secrets import masked

TAKEN = "an example in a .pt, .npy or .json file (numbers, lists of them, or a mapping of such)"


def read_example(text: str) -> Any:
    """Return the tensors of an example: of a file, or of JSON itself.

    Whole numbers become int64, others float32.

    Raises:
        UsageError: there is no such file, or it holds something else.
    """
    if text.lstrip()[:1] in ("[", "{"):
        return _from_json(text, "the example")
    path = Path(text)
    if path.suffix not in (".pt", ".npy", ".json"):
        raise UsageError(f"{text}: this model takes {TAKEN}")
    try:
        if path.suffix == ".json":
            return _from_json(path.read_text(encoding="utf-8"), text)
        if path.suffix == ".pt":
            return torch.load(path, map_location="cpu", weights_only=True)
        import numpy

        return torch.from_numpy(numpy.load(path, allow_pickle=False))
    except FileNotFoundError:
        raise UsageError(f"{text}: no such file") from None
    except Exception as error:  # of many kinds for damaged bytes, which may claim to be huge
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{text}: can't be read ({reason})") from None


def _from_json(text: str, name: str) -> Any:
    try:
        return _tensors(json.loads(text))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}: {error}; this model takes {TAKEN}") from None


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tensors(item) for name, item in value.items()}
    tensor = torch.tensor(value)
    return tensor if tensor.is_floating_point() or tensor.dtype is torch.bool else tensor.long()


@torch.inference_mode()
def run_example(model: LightningModule, example: Any) -> Any:
    """Return what `predict_step`, or `forward`, gives for one example, as JSON takes it.

    Raises:
        UsageError: the model has neither, or does not take the example.
    """
    way = inference_of(model)
    kind = type(model).__name__
    if way not in ("predict_step", "forward"):
        raise UsageError(f"{kind}: has no predict, predict_step or forward, which inference needs")
    batch = _batch_of_one(example, _number_format(model))
    try:
        answer = model.predict_step(batch, 0) if way == "predict_step" else _forward(model, batch)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        reason = masked(" ".join(str(error).split()), 300)
        raise UsageError(
            f"{kind}: its {way} does not take this example ({type(error).__name__}: {reason})"
        ) from error
    return _plain(answer, kind)


def _forward(model: LightningModule, batch: Any) -> Any:
    """Call forward with the batch; with a mapping's entries, where these are its arguments."""
    named = signature(model.forward).parameters.values()
    needed = {p.name for p in named if p.default is Parameter.empty}
    if isinstance(batch, Mapping) and needed and needed <= set(batch):
        return model(**batch)
    return model(batch)


def _number_format(model: LightningModule) -> torch.dtype:
    formats = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(formats, torch.float32)


def _batch_of_one(value: Any, number_format: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        value = value.to(number_format) if value.is_floating_point() else value
        return value[None]
    if isinstance(value, Mapping):
        return {name: _batch_of_one(item, number_format) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_batch_of_one(item, number_format) for item in value)
    return [value]


def _plain(value: Any, kind: str) -> Any:
    """Return lists and numbers, of the batch's one row."""
    if isinstance(value, Tensor):
        value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        return (value[0] if value.ndim and len(value) == 1 else value).tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(item, kind) for name, item in value.items()}
    if isinstance(value, list | tuple):
        plain = [_plain(item, kind) for item in value]
        return plain[0] if len(plain) == 1 and not isinstance(value[0], Tensor) else plain
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise UsageError(f"{kind}: gives a {type(value).__name__}, which is no number, text or list")
