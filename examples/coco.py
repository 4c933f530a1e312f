"""COCO captions: photographs with five captions each, in Karpathy's splits, prepared once.

    python trainer.py data=coco_captions model=dual_encoder model.hidden_size=256

Fetched, 20 GB, unless ``data.folder`` names it. val/accuracy is the share of the 5,000 images
whose own captions are nearest; chance is 0.0002.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import AutoTokenizer

from mlmodeldev.data.cache import CachedArrays, new_array
from mlmodeldev.data.datasets import Examples, as_long
from mlmodeldev.data.images import READER, decode_all, normalised
from mlmodeldev.data.loader import EpochIndex, keys
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.tokens import make_tokenizer, tokenized, tokenizer_key
from mlmodeldev.errors import UsageError

Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


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
        key = {
            "files": [self.digest(file) for file in files],
            "size": self.image_size,
            "reader": READER,
        }
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
        tokenizer = make_tokenizer(self.tokenizer_name, training, vocab_size=8000)
        tokenizer.save_pretrained(folder / "tokenizer")
        texts = list(chain.from_iterable(map(five_captions, records)))
        for name, array in tokenized(tokenizer, texts, self.max_length).items():
            np.save(folder / f"{name}.npy", array.reshape(len(records), 5, -1))


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
        self.tokenizer = AutoTokenizer.from_pretrained(
            tokens.folder / "tokenizer", trust_remote_code=False
        )
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
    def info(self) -> dict[str, Any]:
        """Facts that the model's arguments and inference need."""
        image = {"size": self.image_size, "channels": 3, "mean": self.mean, "std": self.std}
        return {
            "image_size": self.image_size,
            "channels": 3,
            "num_classes": max(len(prompts["input_ids"]) for prompts in self._prompts.values()),
            "vocab_size": len(self.tokenizer),
            "max_length": self.max_length,
            "labels": [],
            "image": {**image, "crop": True},
        }

    def describe(self, index: int) -> dict[str, str]:
        """Name the file of a validation image."""
        number = self.val_set.index[index]  # type: ignore[attr-defined]
        return {"image": self.records[number].file}


class ImageCaptions(Examples):
    """Photographs, each with captions of its own: every image is its own class.

    Args:
        images: (count, stored, stored, 3), uint8.
        captions: tokens, each (count, captions, length).
        index: of the examples; an example's label is its place in it.
        seed: of the draws.
        augment: draw the part of the image, its mirroring and the caption anew in each epoch;
            else the middle, not mirrored, and the first caption.
        size: of the part of the image, in pixels.
        scale: mean and standard deviation of the pixels, scaled to 0..1.
    """

    def __init__(
        self,
        images: np.ndarray,
        captions: Mapping[str, np.ndarray],
        index: np.ndarray,
        seed: int,
        augment: bool,
        size: int,
        scale: tuple[float, float],
    ) -> None:
        super().__init__(index)
        self.images, self.captions = images, dict(captions)
        self.seed, self.augment, self.size, self.scale = seed, augment, size, scale

    def make_batch(self, items: Sequence[EpochIndex]) -> dict[str, Tensor]:
        """Return a batch, drawn from (seed, epoch, number) of each image."""
        numbers = self.numbers(items)
        spare = self.images.shape[1] - self.size
        tops, lefts, mirrored, which = self._draws(numbers, items[0].epoch, spare)
        pixels = np.empty((len(items), self.size, self.size, 3), np.uint8)
        for place, (number, top, left) in enumerate(zip(numbers, tops, lefts, strict=True)):
            part = self.images[number, top : top + self.size, left : left + self.size]
            pixels[place] = part[:, ::-1] if mirrored[place] else part
        return {
            "index": torch.tensor([item.index for item in items]),
            "image": normalised(pixels, *self.scale),
            "label": torch.tensor([item.index for item in items]),
            **{name: as_long(tokens[numbers, which]) for name, tokens in self.captions.items()},
        }

    def _draws(self, numbers: np.ndarray, epoch: int, spare: int) -> tuple[np.ndarray, ...]:
        """Return top and left edge, whether mirrored, and which caption, of each image."""
        if not self.augment:
            middle, none = np.full(len(numbers), spare // 2), np.zeros(len(numbers), np.int64)
            return middle, middle, none, none
        draws = keys(numbers.tolist(), self.seed, "augment", epoch)
        drawn = []
        for choices in (spare + 1, spare + 1, 2, self.captions["input_ids"].shape[1]):
            draws, one = np.divmod(draws, choices)
            drawn.append(one)
        return tuple(drawn)


NAME = "dataset_coco.json"
_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


@dataclass(frozen=True)
class Captioned:
    """An image of the Karpathy splits.

    Attributes:
        folder: of 2014, such as ``val2014``.
        file: name in it.
        coco_id: the number that both years share.
        split: train, val or test (``restval`` belongs to train).
        captions: what people wrote, five or more.
    """

    folder: str
    file: str
    coco_id: int
    split: str
    captions: tuple[str, ...]


def read_karpathy(file: Path) -> list[Captioned]:
    """Return the images of ``dataset_coco.json`` (Karpathy & Fei-Fei 2015), in its order.

    Raises:
        UsageError: the file is of another kind, or an image has no caption.
    """
    try:
        images: list[dict[str, Any]] = json.loads(file.read_bytes())["images"]
        result = [_captioned(image) for image in images]
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: has not the form of dataset_coco.json ({error})") from None
    for image in result:
        if not image.captions:
            raise UsageError(f"{file}: {image.file} has no caption")
    return result


def _captioned(image: dict[str, Any]) -> Captioned:
    split = _SPLITS[image["split"]]
    captions = tuple(" ".join(sentence["raw"].split()) for sentence in image["sentences"])
    return Captioned(image["filepath"], image["filename"], int(image["cocoid"]), split, captions)


def splits_file(folder: Path) -> Path:
    """Return the file of the splits: where ours unpacks it, or beside the photographs."""
    places = [folder / "karpathy" / NAME, folder / NAME]
    return next((place for place in places if place.is_file()), places[0])


def photograph_paths(folder: Path, year: int, records: Sequence[Captioned]) -> list[Path]:
    """Return the file of each image; 2017 names them by their number and splits them anew."""
    if year == 2014:
        return [folder / record.folder / record.file for record in records]
    names = [f"{record.coco_id:012d}.jpg" for record in records]
    validation = {path.name for path in (folder / "val2017").glob("*.jpg")}
    return [folder / ("val2017" if n in validation else "train2017") / n for n in names]


def five_captions(record: Captioned) -> list[str]:
    """Return the first five, which papers compare on; some images have six or seven."""
    return [record.captions[number % len(record.captions)] for number in range(5)]
