"""Pretrained encoders by Hub name or folder, with one clear error where there is none.

Example::

    pretrained(AutoModel, "google/bert_uncased_L-2_H-128_A-2")
"""

from __future__ import annotations

from typing import Any

from mlmodeldev.data.pretrained import pretrained
from mlmodeldev.errors import UsageError

__all__ = ["pretrained", "small_encoder", "token_needs"]


def token_needs(vocab_size: int, max_length: int) -> dict[str, tuple[str, int]]:
    """Return what tokenized data asks of a text encoder."""
    return {
        "vocab_size": ("at least", vocab_size),
        "max_position_embeddings": ("at least", max_length),
    }


def small_encoder(
    hidden_size: int, num_layers: int, num_heads: int, dropout: float
) -> dict[str, Any]:
    """Return the sizes of a small transformer, as ViT and BERT configurations name them."""
    if hidden_size % num_heads:
        raise UsageError(
            f"model.hidden_size={hidden_size}: must be a multiple of model.num_heads={num_heads}"
        )
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "intermediate_size": 2 * hidden_size,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        # BERT's 0.02 suits a width of 768; a narrow encoder would give all inputs one embedding.
        "initializer_range": hidden_size**-0.5,
    }
