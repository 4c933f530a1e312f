"""One's own text files for a language model: tokenized once, as a stream, packed into blocks.

    python trainer.py experiment=causal_lm
    python trainer.py experiment=causal_lm data.files=texts data.tokenizer=bpe
    python trainer.py experiment=causal_lm "data.files='texts/**/*.txt'" data.split_by=documents

Without ``data.files``: "Alice's Adventures in Wonderland" by Lewis Carroll (1865), in the public
domain, bundled as text_files.txt (the Millennium Fulcrum Edition 2.9, from alice29.txt of the
Canterbury corpus; ends of lines are ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from transformers import AutoTokenizer

from mlmodeldev.data.cache import CachedArrays
from mlmodeldev.data.datasets import split
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.pretrained import pretrained
from mlmodeldev.data.text_stream import read_pieces, text_files
from mlmodeldev.data.token_blocks import TokenBlocks, block_count
from mlmodeldev.data.token_file import (
    bpe_tokenizer,
    byte_tokenizer,
    encode_bytes,
    encoder,
    write_tokens,
)
from mlmodeldev.data.tokens import tokenizer_key
from mlmodeldev.errors import UsageError

Share = Annotated[float, Field(gt=0, lt=1)]
Block = Annotated[int, Field(ge=2)]
Vocabulary = Annotated[int, Field(ge=257)]
Seed = Annotated[int, Field(ge=0)]

BUNDLED = Path(__file__).with_suffix(".txt")


class TextFiles(ExactDataModule):
    """Text files as blocks of tokens, documents one after the other with end-of-text between.

    Args:
        files: a file, a folder, a glob, or a list of them; None: the bundled book.
        tokenizer: ``bytes`` (also None), ``bpe`` (trained on the text), a Hub name or a folder.
        vocab_size: of ``bpe``, at most.
        block_size: tokens that the model sees at once.
        separator: text between the documents of a file; None: each file is one.
        split_by: ``blocks``, drawn from anywhere in the text, or whole ``documents``.
    """

    in_memory = True

    def __init__(
        self,
        files: str | list[str] | None = None,
        tokenizer: str | None = None,
        vocab_size: Vocabulary = 1024,
        block_size: Block = 128,
        separator: str | None = None,
        split_by: Literal["blocks", "documents"] = "blocks",
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        split_seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.patterns, self.tokenizer_name = files, tokenizer or "bytes"
        self.vocab_size, self.block_size, self.separator = vocab_size, block_size, separator
        self.split_by, self.split_seed = split_by, split_seed
        self.fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction}

    def prepare_data(self) -> None:
        self._tokens()

    def setup(self, stage: str | None = None) -> None:
        made = self._tokens()
        self.tokenizer = AutoTokenizer.from_pretrained(
            made.folder / "tokenizer", trust_remote_code=False
        )
        self.end = end_of_text(self.tokenizer, self.tokenizer_name)
        tokens, ends = made.array("tokens"), made.array("ends")
        spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
        if self.split_by == "documents":
            parts = self._parts(len(spans))
            self.train_set, self.val_set, self.test_set = (
                TokenBlocks(tokens, spans[np.sort(part)], self.block_size, self.end)
                for part in parts
            )
            return
        whole = np.array([[0, len(tokens)]])
        self.train_set, self.val_set, self.test_set = (
            TokenBlocks(tokens, whole, self.block_size, self.end, np.sort(part))
            for part in self._parts(block_count(len(tokens), self.block_size))
        )

    def _parts(self, count: int) -> list[np.ndarray]:
        """Return which documents, or blocks, are for training, validation and test."""
        fewest = min(round(count * fraction) for fraction in self.fractions.values())
        if fewest < 1 or count - sum(round(count * f) for f in self.fractions.values()) < 1:
            chosen = ", ".join(f"data.{name}={value}" for name, value in self.fractions.items())
            smaller = "data.block_size" if self.split_by == "blocks" else "data.split_by=blocks"
            raise UsageError(
                f"{chosen}: {count} {self.split_by} are too few to be split so"
                f" (more text, other shares, or {smaller})"
            )
        return split(count, self.split_seed, *self.fractions.values())

    @property
    def info(self) -> dict[str, Any]:
        """Facts that the model's arguments and inference need."""
        return {
            "vocab_size": len(self.tokenizer),
            "max_length": self.block_size,
            "end_of_text": self.end,
        }

    def files(self) -> Sequence[Path]:
        """Return the text files, in the order in which they are read."""
        return [BUNDLED] if self.patterns is None else text_files(self.patterns)

    def _tokens(self) -> CachedArrays:
        name = self.tokenizer_name
        own = name in ("bytes", "bpe")
        key = {
            "files": [self.digest(file) for file in self.files()],
            "separator": self.separator,
            "tokenizer": name if own else tokenizer_key(name),
            "vocab_size": self.vocab_size if name == "bpe" else None,
        }
        return self.cached_arrays("text_files/tokens", key, self._make_tokens)

    def _make_tokens(self, folder: Path) -> dict[str, int]:
        tokenizer = self._make_tokenizer()
        tokenizer.save_pretrained(folder / "tokenizer")
        return write_tokens(
            folder,
            read_pieces(self.files(), self.separator),
            encode_bytes if self.tokenizer_name == "bytes" else encoder(tokenizer),
            end_of_text(tokenizer, self.tokenizer_name),
            len(tokenizer),
        )

    def _make_tokenizer(self) -> Any:
        if self.tokenizer_name == "bytes":
            return byte_tokenizer()
        if self.tokenizer_name == "bpe":
            texts = (text for text, _ in read_pieces(self.files(), self.separator))
            return bpe_tokenizer(texts, self.vocab_size)
        return pretrained(AutoTokenizer, self.tokenizer_name)


def end_of_text(tokenizer: Any, name: str) -> int:
    """Return the number of a tokenizer's end-of-text token; of a BERT's, its separator.

    Raises:
        UsageError: it has neither.
    """
    for number in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if number is not None:
            return int(number)
    raise UsageError(f"data.tokenizer={name}: has no end-of-text token; choose another")
