"""A causal language model: a GPT-2 of any size, or any causal model of the Hub.

python trainer.py experiment=causal_lm
python inference.py TRIAL "Once upon"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from mlmodeldev.data.token_blocks import IGNORED
from mlmodeldev.training import pretrained as hub

Batch = Mapping[str, Tensor]
Size = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]

SAMPLES, PROMPT, CONTINUED = 4, 32, 96
"""Of the samples table: rows at most, tokens of a prompt, tokens that continue it."""


class CausalLM(LightningModule):
    """Predicts each token from those before it.

    ``targets`` hold the token that follows each of ``input_ids``, both (batch, length); places
    whose target is -100 count nowhere. Metrics are means over tokens: perplexity is the exponential
    of the mean loss of all tokens of a stage, on any batch size and any number of devices.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        hidden_size: Size = 128,
        num_layers: Size = 2,
        num_heads: Size = 4,
        dropout: Share = 0.1,
        vocab_size: Size = 257,
        max_length: Size = 128,
        end_of_text: int = 0,
    ) -> None:
        super().__init__()
        self.max_length, self.end_of_text = max_length, end_of_text
        self.network: PreTrainedModel = (
            hub.pretrained(
                AutoModelForCausalLM, pretrained, hub.token_needs(vocab_size, max_length)
            )
            if pretrained
            else _gpt2(
                hub.small_encoder(hidden_size, num_layers, num_heads, dropout),
                vocab_size=vocab_size,
                n_positions=max_length,
                bos_token_id=end_of_text,
                eos_token_id=end_of_text,
            )
        )
        self.metrics = nn.ModuleDict({"loss": MeanMetric(), "perplexity": Perplexity()})
        self._first: Tensor | None = None

    @property
    def ALIGNMENT(self) -> dict[str, Any]:
        """What CKA compares: the layers with themselves before training."""
        for name, part in self.named_modules():
            if isinstance(part, nn.ModuleList):
                return {"drift": {"a": f"{name}.*", "against": "start"}}
        return {}

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, (batch, length, tokens)."""
        logits: Tensor = self.network(input_ids=batch["input_ids"], use_cache=False).logits
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        total, count = self._total_loss(batch)
        if self.trainer.world_size > 1:  # each token weighs the same, whichever device has it
            count = self.trainer.strategy.reduce(count.clone(), reduce_op="mean")
        loss = total / count
        self.log("train/loss", loss, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self._first = batch["input_ids"][:SAMPLES]
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, stage: str) -> None:
        total, count = self._total_loss(batch)
        metric: Any
        for name, metric in self.metrics.items():
            metric.update(total / count.clamp(min=1), weight=count)
            self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True)

    def _total_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the tokens of a batch, and their number."""
        targets = batch["targets"].flatten()
        logits = self(batch).flatten(0, 1).float()
        total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        return total, (targets != IGNORED).sum().float()

    # --- generation

    def sample_rows(self, count: int) -> list[dict[str, str]]:
        """Return rows of the samples table: how the first validation blocks go on."""
        tokenizer = getattr(self.trainer.datamodule, "tokenizer", None)  # type: ignore[attr-defined]
        if self._first is None or tokenizer is None:
            return []
        length = min(PROMPT, self._first.shape[1] // 2)
        blocks = self._first[:count]
        prompts, truth = blocks[:, :length], blocks[:, length : length + CONTINUED]
        made = self.generate(prompts, CONTINUED, seed=0, temperature=0.8)
        texts = (tokenizer.batch_decode(ids.tolist()) for ids in (prompts, made, truth))
        names = ("prompt", "continuation", "text")
        return [dict(zip(names, row, strict=True)) for row in zip(*texts, strict=True)]

    @torch.no_grad()
    def generate(self, prompts: Tensor, count: int, seed: int, temperature: float) -> Tensor:
        """Return what follows each prompt: (batch, at most ``count``), end-of-text from its end on.

        Args:
            prompts: (batch, length).
            count: tokens.
            seed: of the draws; torch's own generators are left as they are.
            temperature: 0: the most probable token; 1: as the model has it.
        """
        how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        network: Any = self.network  # `generate` has no types
        context, made = prompts, prompts[:, :0]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            while made.shape[1] < count:
                wanted = count - made.shape[1]
                # the model sees `max_length` tokens: what is longer goes on from the later half
                context = context[:, -max(self.max_length - wanted, self.max_length // 2, 1) :]
                room = max(1, self.max_length - context.shape[1])
                longer = network.generate(
                    context,
                    attention_mask=torch.ones_like(context),
                    max_new_tokens=min(wanted, room),
                    eos_token_id=self.end_of_text,
                    pad_token_id=self.end_of_text,
                    **(how if temperature > 0 else {"do_sample": False}),
                )
                new = longer[:, context.shape[1] :]
                made, context = torch.cat([made, new], 1), longer
                if (made == self.end_of_text).any(1).all():
                    break
        return made

    @torch.inference_mode()
    def continue_texts(
        self, texts: Sequence[str], folder: Path, tokens: int, seed: int, temperature: float
    ) -> list[str]:
        """Return how each text goes on, by itself: other texts beside it change nothing."""
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return [self._continued(tokenizer, text, tokens, seed, temperature) for text in texts]

    def _continued(
        self, tokenizer: Any, text: str, tokens: int, seed: int, temperature: float
    ) -> str:
        # as in training, a document comes after end-of-text
        ids = [self.end_of_text, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        prompt = torch.tensor([ids], device=self.device)
        made = self.generate(prompt, tokens, seed, temperature)[0].tolist()
        # together: some tokenizers write a space only where something stands before it
        begun, whole = (
            tokenizer.decode(part, skip_special_tokens=True) for part in (ids, [*ids, *made])
        )
        continuation: str = whole[len(begun) :]
        return continuation

    # --- export

    def export(self, folder: Path) -> None:
        """Write config.json and model.safetensors, for ``AutoModelForCausalLM.from_pretrained``."""
        self.network.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path, arguments: Mapping[str, Any]) -> CausalLM:
        """Load what `export` wrote."""
        return cls(**{**arguments, "pretrained": str(folder)}).eval()


class Perplexity(MeanMetric):
    """The exponential of a mean loss."""

    def compute(self) -> Tensor:
        return super().compute().exp()


def _gpt2(sizes: Mapping[str, Any], **others: Any) -> GPT2LMHeadModel:
    dropout = sizes["hidden_dropout_prob"]
    width = sizes["hidden_size"]
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=width,
            n_layer=sizes["num_hidden_layers"],
            n_head=sizes["num_attention_heads"],
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            initializer_range=sizes["initializer_range"],
            **others,
        )
    )
