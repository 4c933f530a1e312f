"""CoLA and SST-2: files of labelled sentences, fetched and tokenized once.

    python trainer.py data=cola model=text_classifier
    python trainer.py data=sst2 model=text_classifier

Expected of CoLA: val/matthews about 0.1 from nothing, 0.4 and more with a pretrained encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from transformers import AutoTokenizer

from mlmodeldev.data.cache import CachedArrays
from mlmodeldev.data.datasets import Rows, split
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.tokens import make_tokenizer, tokenized, tokenizer_key
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.manifest import load
from mlmodeldev.fetch.source import FetchError

Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]

Row = tuple[str, int]
"""A sentence and its label."""


def read_cola(file: Path) -> list[Row]:
    """Return sentences and labels of a CoLA file: source, label, star, sentence, by tabs.

    Raises:
        UsageError: a line has another shape, or there is none.
    """
    return _rows(file, 4, (3, 1), "source, label (0 or 1), mark and sentence", head=False)


def read_sst2(file: Path) -> list[Row]:
    """Return sentences and labels of an SST-2 file: sentence, label, by tabs, after a head.

    Raises:
        UsageError: a line has another shape, or there is none.
    """
    return [
        (text.strip(), label)
        for text, label in _rows(file, 2, (0, 1), "sentence and label (0 or 1)", head=True)
    ]


def _rows(file: Path, columns: int, wanted: tuple[int, int], shape: str, head: bool) -> list[Row]:
    rows = []
    text, label = wanted
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if head and number == 1:
            continue
        try:
            row = line.decode("utf-8").split("\t")
        except UnicodeDecodeError:
            raise UsageError(f"{file}:{number}: is no UTF-8 text") from None
        if len(row) != columns or row[label] not in ("0", "1"):
            raise UsageError(f"{file}:{number}: must be {shape}, by tabs")
        rows.append((row[text], int(row[label])))
    if not rows:
        raise UsageError(f"{file}: is empty")
    return rows


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
        tokenizer = make_tokenizer(self.tokenizer_name, training, vocab_size=4000)
        tokenizer.save_pretrained(folder / "tokenizer")
        for part, pairs in rows.items():
            texts, labels = zip(*pairs, strict=True)
            arrays = tokenized(tokenizer, texts, self.max_length)
            for name, array in {**arrays, "label": np.array(labels, np.uint8)}.items():
                np.save(folder / f"{part}_{name}.npy", array)


class Sentences(CachedSentences):
    """Sentences with one of two labels; tokenized once. A subclass says where the files are."""

    in_memory = True
    labels: ClassVar[list[str]]

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
        self.tokenizer = AutoTokenizer.from_pretrained(
            tokens.folder / "tokenizer", trust_remote_code=False
        )
        names = ("input_ids", "attention_mask", "label")
        training, dev = (
            {name: tokens.array(f"{part}_{name}") for name in names} for part in ("train", "dev")
        )
        self.sentences = [text for text, _ in type(self).read(self.files()["dev"])]
        train, test = split(len(training["label"]), self.split_seed, self.test_fraction)
        self.train_set, self.test_set = (Rows(training, part) for part in (train, test))
        self.val_set = Rows(dev, np.arange(len(dev["label"])))

    @property
    def info(self) -> dict[str, Any]:
        """Facts that the model's arguments and inference need."""
        return {
            "num_classes": 2,
            "vocab_size": len(self.tokenizer),
            "max_length": self.max_length,
            "labels": self.labels,
        }

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
    labels: ClassVar[list[str]] = ["unacceptable", "acceptable"]
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
    labels: ClassVar[list[str]] = ["negative", "positive"]
    read = staticmethod(read_sst2)

    def files(self) -> dict[str, Path]:
        folder = self.dataset("sst2") / "SST-2"
        return {part: folder / f"{part}.tsv" for part in ("train", "dev")}
