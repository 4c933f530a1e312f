"""A text classifier: any transformers encoder with a classification head on top.

python trainer.py data=cola model=text_classifier
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from pytorch_lightning import LightningModule
from torch import Tensor
from torchmetrics.classification import MulticlassMatthewsCorrCoef
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
)

from mlmodeldev.errors import UsageError
from mlmodeldev.training.classification import classification_metrics, log_classification
from mlmodeldev.training.pretrained import pretrained, small_encoder, token_needs

Batch = Mapping[str, Tensor]
Size = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class TextClassifier(LightningModule):
    """Any transformers encoder with a classification head on top."""

    ALIGNMENT: ClassVar[dict[str, Any]] = {
        "drift": {"a": "encoder.*.encoder.layer.*", "against": "start"},
    }

    def __init__(
        self,
        encoder: str | None = None,
        hidden_size: Size = 64,
        num_layers: Size = 2,
        num_heads: Size = 4,
        dropout: Share = 0.1,
        vocab_size: Size = 1000,
        max_length: Size = 64,
        num_classes: Size = 2,
    ) -> None:
        super().__init__()
        sizes = small_encoder(hidden_size, num_layers, num_heads, dropout)
        bert = BertConfig(vocab_size=vocab_size, max_position_embeddings=max_length, **sizes)
        bert.num_labels = num_classes
        self.encoder: PreTrainedModel = (
            pretrained(
                AutoModelForSequenceClassification,
                encoder,
                token_needs(vocab_size, max_length),
                num_labels=num_classes,
            )
            if encoder
            else BertForSequenceClassification(bert)
        )
        self.metrics = classification_metrics(num_classes)
        self.metrics["matthews"] = Matthews(num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, (batch, classes)."""
        logits: Tensor = self.encoder(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch), batch["label"])
        self.log("train/loss", loss, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return log_classification(self, "val", self(batch), batch, self.metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return log_classification(self, "test", self(batch), batch, self.metrics)

    def export(self, folder: Path) -> None:
        """Write config.json and model.safetensors, for ``from_pretrained``."""
        self.encoder.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path, arguments: Mapping[str, Any]) -> TextClassifier:
        """Load what `export` wrote."""
        return cls(**{**arguments, "encoder": str(folder)}).eval()

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Path], texts: Sequence[str], folder: Path, info: Mapping[str, Any]
    ) -> list[dict[str, float]]:
        """Return for each text the probability of each class."""
        if images or not texts:
            raise UsageError("this model labels texts: give one or more, and no images")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokens = tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=info["max_length"],
            return_tensors="pt",
        )
        return [
            dict(zip(info["labels"], row, strict=True)) for row in self(tokens).softmax(-1).tolist()
        ]


class Matthews(MulticlassMatthewsCorrCoef):
    """Matthews correlation that is 0 where truth or prediction is one class only.

    So scikit-learn, GLUE and the CoLA papers have it. torchmetrics returns a limit instead: 0.09
    for a classifier that calls everything acceptable, where 70 % are.
    """

    def compute(self) -> Tensor:
        if any(int((self.confmat.sum(side) > 0).sum()) < 2 for side in (0, 1)):
            return torch.zeros((), device=self.confmat.device)
        return super().compute()
