"""CKA: how alike two layers represent the same samples, measured while a model trains.

    from mlmodeldev.alignment import CKA, CKACallback

The parts: `hsic` the maths, `metric` over batches and `fullset` over all data as torchmetrics
metrics, `significance` which values are above chance, `capture` forward hooks, `callback` for any
LightningModule with its `comparison` and `reference_models`, `replay` how a copy validates as the
live model did, `present` what is done without layers that give no features, `history` the diagonal
through training, `results` the numbers and files, `pictures` and `error_marks` what they look
like; `python -m mlmodeldev.alignment` the same from the shell. Names are loaded on first use:
importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "CKA": "metric",
    "FullSetCKA": "fullset",
    "CKACallback": "callback",
    "Comparison": "callback",
    "Capture": "capture",
    "match_layers": "capture",
    "draw_heatmap": "pictures",
    "draw_drift": "pictures",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the table above is the one list of names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
