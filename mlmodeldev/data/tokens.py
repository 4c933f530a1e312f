"""Tokenizers trained in a moment, for data that has none.

Example::

    train_tokenizer(["a handwritten seven"], vocabulary=64).save_pretrained(folder)
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer of at most ``vocabulary`` entries, lower-cased, as BERT's.

    The same texts give the same tokenizer, on any machine.
    """
    texts = list(texts)
    tokenizer = _untrained({})
    # The trainer numbers inner letters in the random order of a hash table, and breaks ties by
    # number: given as special tokens they have a fixed one.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*_SPECIAL, *_inner_letters(tokenizer, texts)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer = _untrained(tokenizer.get_vocab())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _untrained(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _inner_letters(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    normal = (tokenizer.normalizer.normalize_str(text) for text in texts)
    words = {word for text in normal for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    return sorted({f"##{letter}" for word in words for letter in word[1:]})
