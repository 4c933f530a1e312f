"""Files of labelled sentences, tokenized once for all trials.

Example::

    class Cola(Sentences):                      # datamodule.py; Sentences is a PreparedSentences
        read = staticmethod(read_cola)
        def files(self): return {"train": ..., "dev": ...}
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlmodeldev.data.cache import CachedArrays
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.readers import Row
from mlmodeldev.data.tokens import make_tokenizer, tokenized, tokenizer_key


class CachedSentences(ExactDataModule):
    """What there is to do with the files of a set of sentences.

    Attributes:
        name: of the set; its prepared data lie under it.
        read: turns a file into rows.
        tokenizer_name: Hub name or folder; None: trained on the sentences.
        max_length: tokens of a sentence at most.
    """

    name: str
    read: Callable[[Path], list[Row]]
    tokenizer_name: str | None
    max_length: int

    def files(self) -> dict[str, Path]:
        """Return the files ``train`` and ``dev``, fetched if need be."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Tokenize."""
        self.cached_tokens()

    def cached_tokens(self) -> CachedArrays:
        """Return ``train_`` and ``dev_`` arrays of tokens and labels, and ``tokenizer``."""
        key = {
            "files": {name: self.digest(file) for name, file in self.files().items()},
            "tokenizer": tokenizer_key(self.tokenizer_name),
            "max_length": self.max_length,
        }
        return self.cached_arrays(f"{self.name}/tokens", key, self._make_tokens)

    def _make_tokens(self, folder: Path) -> None:
        rows = {part: type(self).read(file) for part, file in self.files().items()}
        training = (text for text, _ in rows["train"])
        tokenizer = make_tokenizer(self.tokenizer_name, training, vocabulary=4000)
        tokenizer.save_pretrained(folder / "tokenizer")
        for part, pairs in rows.items():
            texts, labels = zip(*pairs, strict=True)
            arrays = tokenized(tokenizer, texts, self.max_length)
            for name, array in {**arrays, "label": np.array(labels, np.uint8)}.items():
                np.save(folder / f"{part}_{name}.npy", array)
