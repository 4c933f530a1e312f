"""The data: what you replace.

Any LightningDataModule will do: its loaders are made to resume exactly. The base class here does
more: it shares each batch among devices, so that one device and eight train the same trial, and
makes whole batches at once. A subclass makes its datasets in `setup`; a dataset answers
``dataset[EpochIndex(index, epoch)]`` with a dict of tensors, and draws its augmentation from (seed,
epoch, index) only (mlmodeldev/data/datasets.py has some). What takes long is prepared once, for all
trials: ``self.cached_arrays(name, key, make)`` returns what ``make(folder)`` wrote for this key, as
memory maps.

To add yours: write the class here, and conf/data/NAME.yaml with ``_target_: datamodule.YourClass``;
then ``python trainer.py data=NAME``.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import AutoTokenizer

from mlmodeldev.data.cache import CachedArrays
from mlmodeldev.data.datasets import CaptionedImages, split
from mlmodeldev.data.image_arrays import image_files, make_arrays
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.readers import digits_file, read_digits
from mlmodeldev.data.tokens import make_tokenizer, tokenizer_key

Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PHRASINGS = [
    "a handwritten {}",
    "the digit {}",
    "a photo of the number {}",
    "{} written by hand",
    "someone wrote a {}",
]
CLOTHES = ["t-shirt", "trousers", "pullover", "dress", "coat"]
CLOTHES += ["sandal", "shirt", "sneaker", "bag", "ankle boot"]
THINGS = ["airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PHOTOS = ["a photo of a {}", "a small picture of a {}", "the {}", "one {}", "this is a {}"]


class Digits(ExactDataModule):
    """Handwritten digits with captions: 1,797 grey images of 8x8 pixels, bundled, no download.

    UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), read from the file
    that the scikit-learn wheel carries.
    """

    in_memory = True
    labels: list[str] = WORDS
    phrasings: ClassVar[list[str]] = PHRASINGS
    name = "digits"
    size, channels = 8, 1
    mean, std = 0.305, 0.376  # of all pixels, scaled to 0..1

    def __init__(
        self,
        tokenizer: str | None = None,
        augment: bool = True,
        val_fraction: Share = 0.2,
        test_fraction: Share = 0.1,
        split_seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.tokenizer_name, self.augment, self.split_seed = tokenizer, augment, split_seed
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def prepare_data(self) -> None:
        self._tokenizer()

    def setup(self, stage: str | None = None) -> None:
        self._read_prompts()
        self.digest(digits_file())
        images, labels = read_digits()
        pixels = torch.from_numpy((images / 16 - self.mean) / self.std).unsqueeze(1)
        parts = split(len(labels), self.split_seed, self.val_fraction, self.test_fraction)
        self.train_set, self.val_set, self.test_set = (
            CaptionedImages(pixels, labels, self.prompts, index, self.seed, self.augment and train)
            for index, train in zip(parts, (True, False, False), strict=True)
        )

    def captions(self) -> list[list[str]]:
        """Return the phrasings of each class."""
        return [[phrasing.format(w) for phrasing in self.phrasings] for w in self.labels]

    @property
    def info(self) -> dict[str, Any]:
        """Facts that the model's arguments and inference need."""
        image = {"size": self.size, "channels": self.channels, "mean": self.mean, "std": self.std}
        return {
            "image_size": self.size,
            "channels": self.channels,
            "num_classes": len(self.labels),
            "vocab_size": len(self.tokenizer),
            "max_length": self.prompts["input_ids"].shape[-1],
            "labels": self.labels,
            "captions": self.captions(),
            "image": image,
        }

    def describe(self, index: int) -> dict[str, str]:
        """Show an example as a line of text in the samples table."""
        pixels = self.val_set.images[index, 0] * self.std + self.mean  # type: ignore[attr-defined]
        rows = ["".join(" .:*#"[int(p * 4.99)] for p in row) for row in pixels.clamp(0, 1).tolist()]
        return {"image": "/".join(rows)}

    def _tokenizer(self) -> CachedArrays:
        key = {"tokenizer": tokenizer_key(self.tokenizer_name), "captions": self.captions()}
        return self.cached_arrays(f"{self.name}/tokenizer", key, self._make_tokenizer)

    def _make_tokenizer(self, folder: Path) -> None:
        texts = chain.from_iterable(self.captions())
        make_tokenizer(self.tokenizer_name, texts, vocab_size=128).save_pretrained(folder)

    def _read_prompts(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(
            self._tokenizer().folder, trust_remote_code=False
        )
        self.prompts = tokenize(self.tokenizer, self.captions())


class Images(Digits):
    """MNIST, Fashion-MNIST or CIFAR-10 with captions of their classes; downloaded once.

    LeCun & Cortes 1998; Xiao, Rasul & Vollgraf 2017; Krizhevsky 2009. Validation is a part of the
    training images, the test is the published one.
    """

    names: ClassVar[dict[str, list[str]]] = {
        "mnist": WORDS,
        "fashion_mnist": CLOTHES,
        "cifar10": THINGS,
    }

    def __init__(
        self,
        name: Literal["mnist", "fashion_mnist", "cifar10"] = "mnist",
        tokenizer: str | None = None,
        augment: bool = True,
        val_fraction: Share = 0.1,
        split_seed: Seed = 0,
    ) -> None:
        super().__init__(tokenizer, augment, val_fraction, split_seed=split_seed)
        self.name, self.labels = name, self.names[name]
        self.phrasings = PHRASINGS if name == "mnist" else PHOTOS  # type: ignore[misc]

    def prepare_data(self) -> None:
        self._tokenizer()
        self._arrays()

    def setup(self, stage: str | None = None) -> None:
        self._read_prompts()
        arrays = self._arrays()
        self.mean, self.std = arrays.metadata["mean"], arrays.metadata["std"]
        images, labels = arrays.array("images"), arrays.array("labels").astype(np.int64)
        self.size, self.channels = images.shape[1], images.shape[3]
        training = arrays.metadata["training"]
        train, val = split(training, self.split_seed, self.val_fraction)
        parts = (train, val, np.arange(training, len(labels)))
        self.train_set, self.val_set, self.test_set = (
            CaptionedImages(
                images,
                labels,
                self.prompts,
                index,
                self.seed,
                self.augment and augmented,
                (self.mean, self.std),
            )
            for index, augmented in zip(parts, (True, False, False), strict=True)
        )

    def describe(self, index: int) -> dict[str, str]:
        """Tell which image of the prepared array an example is."""
        return {"image": f"{self.name} {index}"}

    def _arrays(self) -> CachedArrays:
        files = image_files(self.dataset(self.name), self.name)
        key = {"name": self.name, "files": [self.digest(file) for file in files]}
        make = partial(make_arrays, self.name, files)
        return self.cached_arrays(f"{self.name}/images", key, make)


def tokenize(tokenizer: Any, texts: list[list[str]]) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask``, each (classes, phrasings, length)."""
    tokens = tokenizer(list(chain.from_iterable(texts)), padding=True, return_tensors="pt")
    shape = (len(texts), len(texts[0]), -1)
    return {name: tokens[name].view(shape) for name in ("input_ids", "attention_mask")}
