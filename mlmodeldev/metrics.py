"""Metrics where torchmetrics differs from what papers report.

Example::

    metric = Matthews(num_classes=2)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassMatthewsCorrCoef


class Matthews(MulticlassMatthewsCorrCoef):
    """Matthews correlation that is 0 where truth or prediction is one class only.

    So scikit-learn, GLUE and the CoLA papers have it. torchmetrics returns a limit instead: 0.09
    for a classifier that calls everything acceptable, where 70 % are.
    """

    def compute(self) -> Tensor:
        if any(int((self.confmat.sum(side) > 0).sum()) < 2 for side in (0, 1)):
            return torch.zeros((), device=self.confmat.device)
        return super().compute()
