"""The diagonal of a comparison through training: what checkpoints keep of it and drift shows.

    history = new(["conv", "head"])
    add(history, result)                          # once a measurement
    history["values"]                             # [[0.93, 0.41]], epochs x layers

Plain lists and numbers, so that a checkpoint loads with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mlmodeldev.alignment.results import Result

ERRORS = ("floor", "lower", "upper", "significant")
"""Kept beside the values, NaN where there is none; `significant` is 1 or 0."""


def new(layers: Sequence[str]) -> dict[str, list[Any]]:
    """Return an empty history of these layers."""
    return {"layers": list(layers)} | {key: [] for key in ("epochs", "values", *ERRORS)}


def add(history: dict[str, list[Any]], result: Result) -> None:
    """Add the diagonal of a result; a repeated epoch replaces its own and what came after."""
    epochs = history["epochs"]
    kept = sum(epoch < result.epoch for epoch in epochs)
    for key, values in history.items():
        if key != "layers":
            del values[kept:]
    nothing = np.full(result.matrix.shape, np.nan)
    epochs.append(result.epoch)
    history["values"].append(np.diagonal(result.matrix).tolist())
    for key in ERRORS:
        errors = result.errors.get(key, nothing).astype(float)
        history[key].append(np.diagonal(errors).tolist())


def complete(history: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return a history of any release: one from before there were errors has NaN for them."""
    absent = [[float("nan")] * len(history["layers"]) for _ in history["epochs"]]
    return {**{key: [list(one) for one in absent] for key in ERRORS}, **history}
