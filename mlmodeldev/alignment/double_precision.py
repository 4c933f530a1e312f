"""CKA's sums are in float64: on a device that has none, Apple's GPUs, they are made on the CPU.

Example::

    on_wide_device(features)          # the same tensor, or its copy in the CPU's memory
    class CKA(WideMetric): ...        # its state stays where float64 is
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mlmodeldev.machine import has_float64


def on_wide_device(tensor: Tensor) -> Tensor:
    """Return the tensor where float64 can be computed with."""
    return tensor if has_float64(tensor.device.type) else tensor.cpu()


class WideMetric(Metric):
    """A metric whose state is float64: it does not follow its model to a device without."""

    def _apply(self, fn: Callable[..., Any], exclude_state: Any = "") -> Any:
        """Move the state, as `torch.nn.Module` does, unless it can't be there."""
        with torch.no_grad():
            place = fn(torch.zeros(1)).device
        return super()._apply(fn, exclude_state) if has_float64(place.type) else self
