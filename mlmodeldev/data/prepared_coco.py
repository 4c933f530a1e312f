"""COCO, prepared once for all trials: photographs as one array, captions as tokens.

Example::

    class CocoCaptions(PreparedCoco):           # datamodule.py
        def setup(self, stage=None):
            images, tokens = self.cached_images(), self.cached_tokens()
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mlmodeldev.data.cache import CachedArrays, new_array
from mlmodeldev.data.coco import (
    Captioned,
    five_captions,
    photograph_paths,
    read_karpathy,
    splits_file,
)
from mlmodeldev.data.images import decode_all
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.tokens import make_tokenizer, tokenized, tokenizer_key
from mlmodeldev.errors import UsageError


class CachedCoco(ExactDataModule):
    """What there is to do with COCO's files.

    Attributes:
        tokenizer_name: Hub name or folder; None: trained on the captions.
        year: 2014 or 2017.
        folder: COCO as it lies somewhere already; None: fetched.
        image_size: pixels that training cuts; an eighth more are stored.
        max_length: tokens of a caption at most.
        on_corrupt: ``skip`` or ``raise``.
    """

    tokenizer_name: str | None
    year: int
    folder: str | None
    image_size: int
    max_length: int
    on_corrupt: str

    def prepare_data(self) -> None:
        """Prepare both."""
        self.cached_images()
        self.cached_tokens()

    def _source(self) -> Path:
        if self.folder is not None:
            return Path(self.folder).expanduser()
        names = ["caption_datasets.zip", f"train{self.year}.zip", f"val{self.year}.zip"]
        return self.dataset(f"coco_{self.year}", only=names, keep_archives=False)

    def read_records(self) -> list[Captioned]:
        """Return every image with its captions and its split."""
        return read_karpathy(splits_file(self._source()))

    def cached_images(self) -> CachedArrays:
        """Return ``images``, (records, stored, stored, 3) bytes, and what is corrupt."""
        source = self._source()
        files = [splits_file(source), source / f"train{self.year}", source / f"val{self.year}"]
        key = {"files": [self.digest(file) for file in files], "size": self.image_size}
        made = self.cached_arrays(f"coco_{self.year}/images", key, self._make_images)
        self._refuse_corrupt(made.metadata["corrupt"])
        return made

    def _make_images(self, folder: Path) -> dict[str, Any]:
        records = self.read_records()
        stored = self.image_size * 9 // 8
        images = new_array(folder / "images.npy", np.uint8, (len(records), stored, stored, 3))
        problems = decode_all(photograph_paths(self._source(), self.year, records), images)
        self._refuse_corrupt(problems)
        return {"corrupt": problems}

    def _refuse_corrupt(self, problems: dict[Any, str]) -> None:
        if not problems:
            return
        first = next(iter(problems.values()))
        count = f"{len(problems)} of the images can't be decoded, such as {first}"
        if self.on_corrupt == "raise":
            raise UsageError(f"{count}; data.on_corrupt=skip leaves them out")
        self.warn_once(f"{count}; left out")

    def cached_tokens(self) -> CachedArrays:
        """Return ``input_ids`` and ``attention_mask``, (records, 5, max_length)."""
        key = {
            "file": self.digest(splits_file(self._source())),
            "tokenizer": tokenizer_key(self.tokenizer_name),
            "max_length": self.max_length,
        }
        return self.cached_arrays(f"coco_{self.year}/tokens", key, self._make_tokens)

    def _make_tokens(self, folder: Path) -> None:
        records = self.read_records()
        training = chain.from_iterable(r.captions for r in records if r.split == "train")
        tokenizer = make_tokenizer(self.tokenizer_name, training, vocabulary=8000)
        tokenizer.save_pretrained(folder / "tokenizer")
        texts = list(chain.from_iterable(map(five_captions, records)))
        for name, array in tokenized(tokenizer, texts, self.max_length).items():
            np.save(folder / f"{name}.npy", array.reshape(len(records), 5, -1))
