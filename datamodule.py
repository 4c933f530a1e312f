"""The data: what you replace.

A DataModule makes its datasets in `setup`; the base class turns them into loaders that resume
exactly and share batches among devices. A dataset answers ``dataset[Item(index, epoch)]`` with a
dict of tensors, and draws its augmentation from (seed, epoch, index) only.

To add yours: write the class here, and conf/data/NAME.yaml with ``_target_: datamodule.YourClass``;
then ``python trainer.py data=NAME``.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import AutoTokenizer

from mlmodeldev.data.loader import Item
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.seeding import generator, keys
from mlmodeldev.data.tokens import make_tokenizer, tokenizer_key
from mlmodeldev.errors import UsageError
from mlmodeldev.files import whole_file, whole_folder

Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PHRASINGS = [
    "a handwritten {}",
    "the digit {}",
    "a photo of the number {}",
    "{} written by hand",
    "someone wrote a {}",
]


class Digits(ExactDataModule):
    """Handwritten digits with captions: 1,797 grey images of 8x8 pixels, bundled, no download.

    UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), read from the file
    that the scikit-learn wheel carries.
    """

    in_memory = True
    label_names: ClassVar[list[str]] = WORDS
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
        folder = self._tokenizer_folder()
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            texts = chain.from_iterable(captions())
            with whole_folder(folder) as target:
                make_tokenizer(self.tokenizer_name, texts, vocabulary=128).save_pretrained(target)

    def setup(self, stage: str | None = None) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(self._tokenizer_folder())
        self.prompts = tokenize(self.tokenizer, captions())
        images, labels = read_digits()
        pixels = torch.from_numpy((images / 16 - self.mean) / self.std).unsqueeze(1)
        parts = split(len(labels), self.split_seed, self.val_fraction, self.test_fraction)
        self.train_set, self.val_set, self.test_set = (
            CaptionedImages(pixels, labels, self.prompts, index, self.seed, self.augment and train)
            for index, train in zip(parts, (True, False, False), strict=True)
        )

    @property
    def structure(self) -> dict[str, Any]:
        length = self.prompts["input_ids"].shape[-1]
        return {
            "image_size": 8,
            "channels": 1,
            "classes": len(WORDS),
            "vocabulary": len(self.tokenizer),
            "max_length": length,
        }

    def card(self) -> dict[str, Any]:
        image = {"size": 8, "channels": 1, "mean": self.mean, "std": self.std}
        return {"labels": WORDS, "captions": captions(), "image": image}

    def describe(self, index: int) -> dict[str, str]:
        """Show an example as a line of text in the samples table."""
        pixels = self.val_set.images[index, 0] * self.std + self.mean  # type: ignore[attr-defined]
        rows = ["".join(" .:*#"[int(p * 4.99)] for p in row) for row in pixels.clamp(0, 1).tolist()]
        return {"image": "/".join(rows)}

    def _tokenizer_folder(self) -> Path:
        text = repr((tokenizer_key(self.tokenizer_name), captions(), 128)).encode()
        return Path(self.data_dir) / "digits" / f"tokenizer-{hashlib.sha256(text).hexdigest()[:8]}"


class CaptionedImages:
    """Images in memory, each with one of several captions of its class."""

    def __init__(
        self,
        images: Tensor,
        labels: np.ndarray,
        prompts: dict[str, Tensor],
        index: np.ndarray,
        seed: int,
        augment: bool,
    ) -> None:
        self.images, self.labels, self.prompts = images, labels, prompts
        self.index, self.seed, self.augment = index, seed, augment

    def __len__(self) -> int:
        return len(self.index)

    def make_batch(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return a batch, drawn from (seed, epoch, number) of each image."""
        numbers = self.index[[item.index for item in items]]
        epoch = items[0].epoch if self.augment else 0
        draws = keys(numbers.tolist(), self.seed, "augment", epoch)
        images = self.images[numbers]
        if self.augment:
            # One in eight images moves up, one down; one in eight left, one right.
            sides = (draws // 8 % 8, draws // 64 % 8)
            images = shift(images, *((side == 0).astype(int) - (side == 1) for side in sides))
        labels, phrasings = self.labels[numbers], draws % len(PHRASINGS)
        return {
            "index": torch.from_numpy(numbers),
            "image": images,
            "label": torch.from_numpy(labels),
            **{name: tokens[labels, phrasings] for name, tokens in self.prompts.items()},
        }

    def __getitem__(self, item: Item) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.make_batch([item]).items()}


class Cola(ExactDataModule):
    """CoLA, the Corpus of Linguistic Acceptability (Warstadt, Singh & Bowman 2019).

    Reads ``in_domain_train.tsv`` and ``in_domain_dev.tsv`` of the public release, from
    ``<data_dir>/cola/``. Sentences are tokenized once, into a cache keyed by their digest.
    """

    in_memory = True
    label_names: ClassVar[list[str]] = ["unacceptable", "acceptable"]

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

    def prepare_data(self) -> None:
        files = self._files()
        target = self._cache()
        if target.is_dir():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        sentences = {name: read_cola(file) for name, file in files.items()}
        training = (text for text, _ in sentences["train"])
        tokenizer = make_tokenizer(self.tokenizer_name, training, vocabulary=4000)
        with whole_folder(target) as folder:
            tokenizer.save_pretrained(folder / "tokenizer")
            for name, rows in sentences.items():
                texts, labels = zip(*rows, strict=True)
                tokens = tokenizer(
                    list(texts),
                    padding="max_length",
                    truncation=True,
                    max_length=self.max_length,
                    return_tensors="np",
                )
                with whole_file(folder / f"{name}.npz") as file:
                    np.savez(
                        file,
                        input_ids=tokens["input_ids"],
                        attention_mask=tokens["attention_mask"],
                        label=np.array(labels),
                    )

    def setup(self, stage: str | None = None) -> None:
        folder = self._cache()
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        arrays = {name: dict(np.load(folder / f"{name}.npz")) for name in ("train", "dev")}
        self.sentences = [text for text, _ in read_cola(self._files()["dev"])]
        count = len(arrays["train"]["label"])
        train, test = split(count, self.split_seed, self.test_fraction)
        self.train_set, self.test_set = (Rows(arrays["train"], part) for part in (train, test))
        self.val_set = Rows(arrays["dev"], np.arange(len(arrays["dev"]["label"])))

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

    def _files(self) -> dict[str, Path]:
        names = {"train": "in_domain_train.tsv", "dev": "in_domain_dev.tsv"}
        placed = Path(self.data_dir) / "cola"
        fetched = Path(self.data_dir) / "cola_public" / "cola_public" / "raw"
        for folder in (placed, fetched):
            files = {part: folder / name for part, name in names.items()}
            if all(file.is_file() for file in files.values()):
                return files
        missing = [name for name in names.values() if not (placed / name).is_file()]
        raise UsageError(
            f"{placed}: {' and '.join(missing)} not found; run 'python -m mlmodeldev.data fetch"
            f" cola_public --directory {self.data_dir}', or unpack the raw folder of"
            " https://nyu-mll.github.io/CoLA/cola_public_1.1.zip (md5"
            " 9f6d88c3558ec424cd9d66ea03589aba) there [data=cola]"
        )

    def _cache(self) -> Path:
        made_by = tokenizer_key(self.tokenizer_name), self.max_length
        digest = hashlib.sha256(repr(made_by).encode())
        for file in self._files().values():
            digest.update(file.read_bytes())
        return Path(self.data_dir) / "cola" / f"tokens-{digest.hexdigest()[:12]}"


class Rows:
    """Some rows of equally long arrays."""

    def __init__(self, arrays: dict[str, np.ndarray], index: np.ndarray) -> None:
        self.arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def make_batch(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return a batch."""
        numbers = torch.from_numpy(self.index[[item.index for item in items]])
        return {"index": numbers, **{name: array[numbers] for name, array in self.arrays.items()}}

    def __getitem__(self, item: Item) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.make_batch([item]).items()}


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images (1797, 8, 8), float32 in 0..16, and labels (1797,), int64."""
    # The package is found, not imported: importing scikit-learn would cost a second.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("data=digits is read from the scikit-learn wheel, which is not installed")
    file = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def read_cola(file: Path) -> list[tuple[str, int]]:
    """Return sentences and labels of a CoLA file: source, label, star, sentence, by tabs.

    Raises:
        UsageError: a line has another shape, or there is none.
    """
    rows = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            row = line.decode("utf-8").split("\t")
        except UnicodeDecodeError:
            raise UsageError(f"{file}:{number}: is no UTF-8 text") from None
        if len(row) != 4 or row[1] not in ("0", "1"):
            raise UsageError(
                f"{file}:{number}: must be source, label (0 or 1), mark and sentence, by tabs"
            )
        rows.append((row[3], int(row[1])))
    if not rows:
        raise UsageError(f"{file}: is empty")
    return rows


def captions() -> list[list[str]]:
    """Return the phrasings of each class."""
    return [[phrasing.format(word) for phrasing in PHRASINGS] for word in WORDS]


def tokenize(tokenizer: Any, texts: list[list[str]]) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask``, each (classes, phrasings, length)."""
    tokens = tokenizer(list(chain.from_iterable(texts)), padding=True, return_tensors="pt")
    shape = (len(texts), len(texts[0]), -1)
    return {name: tokens[name].view(shape) for name in ("input_ids", "attention_mask")}


def split(count: int, seed: int, *fractions: float) -> list[np.ndarray]:
    """Cut ``range(count)`` at random into the rest and one part for each fraction."""
    order = generator(seed, "split").permutation(count)
    sizes = [round(count * fraction) for fraction in fractions]
    rest = count - sum(sizes)
    if rest < 1:
        raise UsageError("data: val_fraction and test_fraction leave nothing to train on")
    return np.split(order, np.cumsum([rest, *sizes])[:-1])


def shift(images: Tensor, down: np.ndarray, right: np.ndarray) -> Tensor:
    """Move each image (batch, channels, height, width) by its pixels; the edge is repeated."""
    height, width = images.shape[-2:]
    rows = (np.arange(height) - down[:, None]).clip(0, height - 1)
    columns = (np.arange(width) - right[:, None]).clip(0, width - 1)
    each = np.arange(len(images))[:, None, None]
    return images.movedim(1, -1)[each, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
