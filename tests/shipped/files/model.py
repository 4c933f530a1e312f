"""The models: what you replace.

Any LightningModule will do, with an optimizer of its own or, as here, without: then optimizer and
schedule are settings. These take structure only (sizes, names of encoders). Arguments that the
DataModule's `info` names (``image_size``, ``num_classes`` ...) are filled in.

To add yours: write the class here, and conf/model/NAME.yaml with ``_target_: model.YourClass``;
then ``python trainer.py model=NAME``. `export` writes best/ and last/; `load` and `predict` serve
inference.py; a model works without the three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedModel,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTModel,
)

from mlmodeldev.data.images import read_image
from mlmodeldev.errors import UsageError
from mlmodeldev.training.classification import classification_metrics, log_classification
from mlmodeldev.training.pretrained import pretrained, small_encoder, token_needs

Batch = Mapping[str, Tensor]
Size = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class DualEncoder(LightningModule):
    """An image tower and a text tower that meet in one space (CLIP, Radford 2021).

    Pairs of one label all count as matching (UniCL, Yang 2022), so a batch may hold many images
    of a class. Validation is zero-shot: an image belongs to the class whose captions are nearest.
    """

    # What CKA compares in validation, unless callbacks.cka.compare says otherwise.
    ALIGNMENT: ClassVar[dict[str, Any]] = {
        "towers": {
            "a": ["image.embeddings", "image.layers.*", "image.pooler", "image_projection"],
            "b": ["text.embeddings", "text.encoder.layer.*", "text.pooler", "text_projection"],
            "against": "self",
        },
        "drift": {"a": ["image.layers.*", "text.encoder.layer.*"], "against": "start"},
    }

    def __init__(
        self,
        image: str | None = None,
        text: str | None = None,
        hidden_size: Size = 64,
        num_layers: Size = 2,
        num_heads: Size = 4,
        dropout: Share = 0.0,
        projection: Size = 64,
        image_size: Size = 8,
        channels: Size = 1,
        vocab_size: Size = 100,
        max_length: Size = 16,
        num_classes: Size = 10,
    ) -> None:
        super().__init__()
        sizes = small_encoder(hidden_size, num_layers, num_heads, dropout)
        patch = max(1, image_size // 4)
        vision = ViTConfig(image_size=image_size, patch_size=patch, num_channels=channels, **sizes)
        bert = BertConfig(vocab_size=vocab_size, max_position_embeddings=max_length, **sizes)
        pixels = {"image_size": ("exactly", image_size), "num_channels": ("exactly", channels)}
        self.image: PreTrainedModel = (
            pretrained(ViTModel, image, pixels) if image else ViTModel(vision)
        )
        tokens = token_needs(vocab_size, max_length)
        self.text: PreTrainedModel = (
            pretrained(BertModel, text, tokens) if text else BertModel(bert)
        )
        self.image_projection = nn.Linear(self.image.config.hidden_size, projection, bias=False)
        self.text_projection = nn.Linear(self.text.config.hidden_size, projection, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))  # e^2.6592 = 1/0.07, as in CLIP
        self.metrics = classification_metrics(num_classes)
        self.class_embeddings = torch.empty(0)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return image and text embeddings of length 1, each (batch, projection)."""
        return self.embed_images(batch["image"]), self.embed_texts(batch)

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed images (batch, channels, height, width) as (batch, projection)."""
        pooled = self.image(pixel_values=images).pooler_output
        return F.normalize(self.image_projection(pooled), dim=-1)

    def embed_texts(self, tokens: Batch) -> Tensor:
        """Embed ``input_ids`` and ``attention_mask``, each (batch, length)."""
        output = self.text(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return F.normalize(self.text_projection(output.pooler_output), dim=-1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, texts = self(batch)
        images, texts, labels = map(self._from_all_ranks, (images, texts, batch["label"]))
        loss = contrastive_loss(images, texts, self.logit_scale.exp(), labels)
        self.log("train/loss", loss)
        return loss

    def _from_all_ranks(self, values: Tensor) -> Tensor:
        """Return the whole global batch, with gradients: negatives are not per device."""
        if self.trainer.world_size == 1:
            return values
        gathered = self.all_gather(values, sync_grads=values.requires_grad)
        whole: Tensor = gathered.flatten(0, 1)  # type: ignore[union-attr]
        return whole

    def on_validation_epoch_start(self) -> None:
        self.class_embeddings = self.embed_classes(self.trainer.datamodule.prompts)  # type: ignore[attr-defined]

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def embed_classes(self, prompts: Batch) -> Tensor:
        """Embed captions (classes, phrasings, length) as (classes, projection): their mean."""
        count, phrasings = prompts["input_ids"].shape[:2]
        flat = {name: ids.flatten(0, 1) for name, ids in prompts.items()}
        embedded = [  # in parts: COCO has 25,000 captions to look among
            self.embed_texts(
                {name: ids[at : at + 512].to(self.device) for name, ids in flat.items()}
            )
            for at in range(0, count * phrasings, 512)
        ]
        return F.normalize(torch.cat(embedded).view(count, phrasings, -1).mean(1), dim=-1)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, stage: str) -> dict[str, Tensor]:
        # The captions are embedded too, so that CKA can compare the towers on the same examples.
        images, _ = self(batch)
        logits = self.logit_scale.exp() * images @ self.class_embeddings.T
        return log_classification(self, stage, logits, batch, self.metrics)

    def export(self, folder: Path) -> None:
        """Write config.json and model.safetensors, for ``AutoModel.from_pretrained``."""
        pair = VisionTextDualEncoderModel(vision_model=self.image, text_model=self.text)
        pair.visual_projection, pair.text_projection = self.image_projection, self.text_projection
        pair.logit_scale = self.logit_scale
        pair.config.projection_dim = self.image_projection.out_features
        pair.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path, arguments: Mapping[str, Any]) -> DualEncoder:
        """Load what `export` wrote; ``arguments`` are those that the model was made with."""
        model = cls(**{**arguments, "image": None, "text": None})
        pair = VisionTextDualEncoderModel.from_pretrained(folder, trust_remote_code=False)
        model.image, model.text = pair.vision_model, pair.text_model
        model.image_projection, model.text_projection = pair.visual_projection, pair.text_projection
        model.logit_scale = pair.logit_scale
        return model.eval()

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Path], texts: Sequence[str], folder: Path, info: Mapping[str, Any]
    ) -> list[dict[str, float]]:
        """Return for each image the probability of each class, or of each given caption."""
        if not images:
            raise UsageError("this model labels images: give the path of one (texts are captions)")
        names = list(texts) or info["labels"]
        if not names:
            raise UsageError("this model knows no classes: give candidate captions by --text")
        captions = [[text] for text in texts] or info["captions"]
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        flat = [caption for group in captions for caption in group]
        longest = self.text.config.max_position_embeddings
        tokens = tokenizer(
            flat, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        shape = (len(captions), len(captions[0]), -1)
        prompts = {n: tokens[n].view(shape) for n in ("input_ids", "attention_mask")}
        pixels = torch.stack([read_image(path, **info["image"]) for path in images])
        logits = self.logit_scale.exp() * self.embed_images(pixels) @ self.embed_classes(prompts).T
        return [dict(zip(names, row, strict=True)) for row in logits.softmax(-1).tolist()]


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, labels: Tensor) -> Tensor:
    """Return the symmetric loss of matching images with texts and texts with images.

    Args:
        images: (batch, dim), of length 1.
        texts: (batch, dim), of length 1.
        scale: inverse temperature.
        labels: (batch,); every pair of equal labels is a match. All different: CLIP's loss.
    """
    logits = scale * images @ texts.T
    matches = (labels[:, None] == labels[None, :]).to(logits.dtype)
    targets = matches / matches.sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
