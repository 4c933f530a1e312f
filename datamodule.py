"""The data: what you replace.

A DataModule makes its datasets in `setup`; the base class turns them into loaders that resume
exactly and share batches among devices. A dataset answers ``dataset[EpochIndex(index, epoch)]``
with a dict of tensors, and draws its augmentation from (seed, epoch, index) only
(mlmodeldev/data/datasets.py has some). What takes long is prepared once, for all trials:
``self.cached_arrays(name, key, make)`` returns what ``make(folder)`` wrote for this key, as memory
maps.

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
from mlmodeldev.data.datasets import CaptionedImages, ImageCaptions, Rows, as_long, shift, split
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.prepared_coco import CachedCoco
from mlmodeldev.data.prepared_images import image_files, make_arrays
from mlmodeldev.data.prepared_sentences import CachedSentences
from mlmodeldev.data.readers import digits_file, read_cola, read_digits, read_sst2
from mlmodeldev.data.tokens import make_tokenizer, tokenizer_key
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.manifest import load
from mlmodeldev.fetch.source import FetchError

__all__ = ["CocoCaptions", "Cola", "Digits", "Images", "Sst2", "read_cola", "read_digits", "shift"]

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
    label_names: list[str] = WORDS
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
        return [[phrasing.format(w) for phrasing in self.phrasings] for w in self.label_names]

    @property
    def structure(self) -> dict[str, Any]:
        return {
            "image_size": self.size,
            "channels": self.channels,
            "classes": len(self.label_names),
            "vocabulary": len(self.tokenizer),
            "max_length": self.prompts["input_ids"].shape[-1],
        }

    def card(self) -> dict[str, Any]:
        image = {"size": self.size, "channels": self.channels, "mean": self.mean, "std": self.std}
        return {"labels": self.label_names, "captions": self.captions(), "image": image}

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
        make_tokenizer(self.tokenizer_name, texts, vocabulary=128).save_pretrained(folder)

    def _read_prompts(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(self._tokenizer().folder)
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
        self.name, self.label_names = name, self.names[name]
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


class Sentences(CachedSentences):
    """Sentences with one of two labels; tokenized once. A subclass says where the files are."""

    in_memory = True

    def __init__(
        self,
        tokenizer: str | None = None,
        max_length: Size = 48,
        test_fraction: Share = 0.1,
        split_seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.tokenizer_name, self.max_length = tokenizer, max_length
        self.test_fraction, self.split_seed = test_fraction, split_seed

    def setup(self, stage: str | None = None) -> None:
        tokens = self.cached_tokens()
        self.tokenizer = AutoTokenizer.from_pretrained(tokens.folder / "tokenizer")
        names = ("input_ids", "attention_mask", "label")
        training, dev = (
            {name: tokens.array(f"{part}_{name}") for name in names} for part in ("train", "dev")
        )
        self.sentences = [text for text, _ in type(self).read(self.files()["dev"])]
        train, test = split(len(training["label"]), self.split_seed, self.test_fraction)
        self.train_set, self.test_set = (Rows(training, part) for part in (train, test))
        self.val_set = Rows(dev, np.arange(len(dev["label"])))

    @property
    def structure(self) -> dict[str, Any]:
        return {
            "classes": 2,
            "vocabulary": len(self.tokenizer),
            "max_length": self.max_length,
        }

    def card(self) -> dict[str, Any]:
        return {"labels": self.label_names, "max_length": self.max_length}

    def describe(self, index: int) -> dict[str, str]:
        """Show a validation sentence in the samples table."""
        return {"text": self.sentences[index]}


class Cola(Sentences):
    """CoLA, the Corpus of Linguistic Acceptability (Warstadt, Singh & Bowman 2019).

    Args:
        release: ``public``, of its authors: validation is the in-domain part (527 sentences);
            ``glue``: in- and out-of-domain (1043), as GLUE's figures are measured.
    """

    name = "cola"
    label_names: list[str] = ["unacceptable", "acceptable"]  # noqa: RUF012
    read = staticmethod(read_cola)

    def __init__(
        self,
        tokenizer: str | None = None,
        max_length: Size = 48,
        test_fraction: Share = 0.1,
        split_seed: Seed = 0,
        release: Literal["public", "glue"] = "public",
    ) -> None:
        super().__init__(tokenizer, max_length, test_fraction, split_seed)
        self.release = release

    def files(self) -> dict[str, Path]:
        """Return what lies in ``<data_dir>/cola/``, or else is fetched."""
        if self.release == "glue":
            folder = self.dataset("cola") / "CoLA"
            return {part: folder / f"{part}.tsv" for part in ("train", "dev")}
        names = {part: f"in_domain_{part}.tsv" for part in ("train", "dev")}
        folder = Path(self.data_dir) / "cola"
        missing = [name for name in names.values() if not (folder / name).is_file()]
        advice = f"{folder}: {' and '.join(missing)} not found [data=cola]"
        if len(missing) == 1:
            source = load("cola_public").entries[0].source
            raise UsageError(
                f"{advice}, though the other file is there: place it too, from"
                f" {source.shown_urls[-1]} ({' '.join(source.digest or ())})"
            )
        try:
            folder = self.dataset("cola_public") / "cola_public" / "raw" if missing else folder
        except FetchError as error:
            raise UsageError(f"{advice}; {error}") from None
        return {part: folder / name for part, name in names.items()}


class Sst2(Sentences):
    """SST-2, sentences of film reviews (Socher 2013), as GLUE distributes them."""

    name = "sst2"
    label_names: list[str] = ["negative", "positive"]  # noqa: RUF012
    read = staticmethod(read_sst2)

    def files(self) -> dict[str, Path]:
        folder = self.dataset("sst2") / "SST-2"
        return {part: folder / f"{part}.tsv" for part in ("train", "dev")}


class CocoCaptions(CachedCoco):
    """COCO photographs with five captions each (Chen 2015), in Karpathy's splits.

    Decoded and made smaller once, to ``image_size`` and an eighth more, from which training cuts
    a part at random. Every image is its own class: validation is retrieval, the share of images
    whose own captions, as a mean, are nearest (recall at 1 among the 5,000 images).

    Args:
        folder: COCO as it lies somewhere already (``train2014/``, ``val2014/`` or 2017's, and
            ``karpathy/dataset_coco.json`` or ``dataset_coco.json``); null: fetched, 20 GB.
        on_corrupt: an image that can't be decoded is left out of its split, or an error.
    """

    def __init__(
        self,
        tokenizer: str | None = None,
        year: Literal[2014, 2017] = 2014,
        folder: str | None = None,
        image_size: Size = 64,
        max_length: Size = 32,
        augment: bool = True,
        on_corrupt: Literal["skip", "raise"] = "raise",
        mean: Share = 0.449,
        std: Positive = 0.277,
    ) -> None:
        super().__init__()
        self.tokenizer_name, self.year, self.folder = tokenizer, year, folder
        self.image_size, self.max_length, self.augment = image_size, max_length, augment
        self.on_corrupt, self.mean, self.std = on_corrupt, mean, std

    def setup(self, stage: str | None = None) -> None:
        images, tokens = self.cached_images(), self.cached_tokens()
        self.tokenizer = AutoTokenizer.from_pretrained(tokens.folder / "tokenizer")
        self.records = self.read_records()
        corrupt = {int(number) for number in images.metadata["corrupt"]}
        whole = [number not in corrupt for number in range(len(self.records))]
        captions = {n: tokens.array(n) for n in ("input_ids", "attention_mask")}
        parts = {
            name: np.array(
                [n for n, r in enumerate(self.records) if r.split == name and whole[n]], np.int64
            )
            for name in ("train", "val", "test")
        }
        self.train_set, self.val_set, self.test_set = (
            ImageCaptions(
                images.array("images"),
                captions,
                index,
                self.seed,
                self.augment and name == "train",
                self.image_size,
                (self.mean, self.std),
            )
            for name, index in parts.items()
        )
        self.label_names = [self.records[number].captions[0] for number in parts["val"]]
        self._prompts = {
            part: {name: as_long(array[parts[part]]) for name, array in captions.items()}
            for part in ("val", "test")
        }

    @property
    def prompts(self) -> dict[str, Tensor]:
        """The captions of the images that are being looked for."""
        testing = self.trainer is not None and self.trainer.testing
        return self._prompts["test" if testing else "val"]

    @property
    def structure(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "channels": 3,
            "classes": max(len(prompts["input_ids"]) for prompts in self._prompts.values()),
            "vocabulary": len(self.tokenizer),
            "max_length": self.max_length,
        }

    def card(self) -> dict[str, Any]:
        scale = {"mean": self.mean, "std": self.std, "crop": True}
        return {"labels": [], "image": {"size": self.image_size, "channels": 3, **scale}}

    def describe(self, index: int) -> dict[str, str]:
        """Name the file of a validation image."""
        number = self.val_set.index[index]  # type: ignore[attr-defined]
        return {"image": self.records[number].file}


def tokenize(tokenizer: Any, texts: list[list[str]]) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask``, each (classes, phrasings, length)."""
    tokens = tokenizer(list(chain.from_iterable(texts)), padding=True, return_tensors="pt")
    shape = (len(texts), len(texts[0]), -1)
    return {name: tokens[name].view(shape) for name in ("input_ids", "attention_mask")}
