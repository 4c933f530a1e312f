"""Loss, accuracy and what the samples table needs, for models that classify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

Batch = Mapping[str, Tensor]


def classification_metrics(num_classes: int) -> nn.ModuleDict:
    """Return the metrics of a whole stage: they count each example once, on any devices."""
    accuracy = MulticlassAccuracy(num_classes, average="micro")
    return nn.ModuleDict({"loss": MeanMetric(), "accuracy": accuracy})


def log_classification(
    module: LightningModule, stage: str, logits: Tensor, batch: Batch, metrics: nn.ModuleDict
) -> dict[str, Tensor]:
    """Log loss and metrics of a batch over the stage; return what the samples table needs."""
    labels = batch["label"]
    metric: Any
    for name, metric in metrics.items():
        if name == "loss":
            metric.update(F.cross_entropy(logits, labels), weight=len(labels))
        else:
            metric.update(logits.argmax(-1), labels)
        module.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True)
    probability, prediction = logits.float().softmax(-1).max(-1)
    return {
        "index": batch["index"],
        "label": labels,
        "prediction": prediction,
        "probability": probability,
    }
