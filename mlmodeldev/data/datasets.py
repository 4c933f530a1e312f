"""Datasets over arrays, in memory or memory-mapped, that make whole batches.

A batch is a function of (seed, epoch, number) of its examples, so it is the same whoever makes
it, in whichever order, after however many interruptions.

Example::

    Rows({"input_ids": tokens.array("input_ids"), "label": labels}, index=np.arange(400))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlmodeldev.data.images import normalised
from mlmodeldev.data.loader import EpochIndex, generator, keys
from mlmodeldev.errors import UsageError


class Examples:
    """Some examples of a larger whole, by their numbers; a subclass has ``make_batch``."""

    def __init__(self, index: np.ndarray) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def numbers(self, items: Sequence[EpochIndex]) -> np.ndarray:
        """Return the numbers of these items in the whole."""
        chosen: np.ndarray = self.index[[item.index for item in items]]
        return chosen

    def make_batch(self, items: Sequence[EpochIndex]) -> dict[str, Tensor]:
        """Return a batch."""
        raise NotImplementedError

    def __getitem__(self, item: EpochIndex) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.make_batch([item]).items()}


class Rows(Examples):
    """Rows of equally long arrays of whole numbers; they come out as int64."""

    def __init__(self, arrays: Mapping[str, np.ndarray], index: np.ndarray) -> None:
        super().__init__(index)
        self.arrays = dict(arrays)

    def make_batch(self, items: Sequence[EpochIndex]) -> dict[str, Tensor]:
        """Return a batch."""
        numbers = self.numbers(items)
        return {
            "index": torch.from_numpy(numbers),
            **{name: as_long(array[numbers]) for name, array in self.arrays.items()},
        }


class CaptionedImages(Examples):
    """Images with labels, each with one of several captions of its class.

    Args:
        images: (count, channels, height, width), normalised; or (count, height, width, channels),
            uint8, which ``scale`` normalises.
        labels: (count,), int64.
        prompts: tokens of captions, each (classes, phrasings, length).
        index: of the examples.
        seed: of the draws.
        augment: shift images by up to a pixel, and draw captions anew in each epoch.
        scale: mean and standard deviation of pixels that are bytes.
    """

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: np.ndarray,
        prompts: dict[str, Tensor],
        index: np.ndarray,
        seed: int,
        augment: bool,
        scale: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(index)
        self.images, self.labels, self.prompts = images, labels, prompts
        self.seed, self.augment, self.scale = seed, augment, scale

    def make_batch(self, items: Sequence[EpochIndex]) -> dict[str, Tensor]:
        """Return a batch, drawn from (seed, epoch, number) of each image."""
        numbers = self.numbers(items)
        epoch = items[0].epoch if self.augment else 0
        draws = keys(numbers.tolist(), self.seed, "augment", epoch)
        images: Any = self.images[numbers]
        if self.scale:
            images = normalised(images, *self.scale)
        if self.augment:
            # One in eight images moves up, one down; one in eight left, one right.
            sides = (draws // 8 % 8, draws // 64 % 8)
            images = shift(images, *((side == 0).astype(int) - (side == 1) for side in sides))
        labels = self.labels[numbers]
        captions = {name: tokens.shape[1] for name, tokens in self.prompts.items()}
        phrasings = draws % captions["input_ids"]
        return {
            "index": torch.from_numpy(numbers),
            "image": images,
            "label": torch.from_numpy(labels),
            **{name: tokens[labels, phrasings] for name, tokens in self.prompts.items()},
        }


def as_long(values: np.ndarray) -> Tensor:
    """Return whole numbers as an int64 tensor of their own memory."""
    return torch.from_numpy(values.astype(np.int64))


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
