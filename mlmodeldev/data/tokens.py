"""Tokenizers by name, or trained in a moment for data that has none.

Example::

    make_tokenizer(None, ["a handwritten seven"], vocab_size=64).save_pretrained(folder)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mlmodeldev.data.pretrained import pretrained

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(
    name: str | None, texts: Iterable[str], vocab_size: int
) -> PreTrainedTokenizerFast:
    """Return the tokenizer of that name, or train one on the texts."""
    if name:
        named: PreTrainedTokenizerFast = pretrained(AutoTokenizer, name)
        return named
    return train_tokenizer(texts, vocab_size)


def tokenizer_key(name: str | None) -> str:
    """Return what tells one tokenizer from another: a folder may hold a new one tomorrow."""
    digest = hashlib.sha256((name or "bpe").encode())
    for file in sorted(Path(name).glob("*")) if name else ():
        if file.name.startswith(("token", "vocab", "merges", "spiece", "added", "special")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def tokenized(tokenizer: Any, texts: Sequence[str], max_length: int) -> dict[str, np.ndarray]:
    """Return ``input_ids``, int32, and ``attention_mask``, uint8, each (texts, max_length).

    Longer texts are cut, shorter ones padded. The types keep files and memory small.
    """
    tokens = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=max_length,
        return_tensors="np",
    )
    return {
        "input_ids": tokens["input_ids"].astype(np.int32),
        "attention_mask": tokens["attention_mask"].astype(np.uint8),
    }


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a BPE tokenizer (Sennrich 2016) of at most ``vocab_size`` entries, lower-cased.

    The same texts give the same entries in the same order on every machine. WordPiece would not:
    its trainer numbers the continued letters in the order of a hash table that is seeded anew in
    each process, and a trial could not be repeated from a fresh clone.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = BpeTrainer(vocab_size=vocab_size, special_tokens=_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    wrap: Any = PreTrainedTokenizerFast  # its constructor has no types
    trained: PreTrainedTokenizerFast = wrap(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    return trained
