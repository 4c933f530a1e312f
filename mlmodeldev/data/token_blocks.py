"""Blocks of equally many tokens, cut from documents that follow one another.

Example::

    blocks = TokenBlocks(tokens, np.array([[0, 5000]]), size=128, end=256)
    blocks.make_batch([EpochIndex(0, 0)])["targets"]        # (1, 128): the tokens 0 to 127
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlmodeldev.data.datasets import Examples, as_long
from mlmodeldev.data.loader import EpochIndex

IGNORED = -100
"""Target of a place that is no token: torch's cross-entropy leaves it out."""


class TokenBlocks(Examples):
    """Blocks over some documents: each of their tokens is the target of one place of one block.

    ``input_ids`` hold the token before each target: in the first block end-of-text, in each other
    the last token of the block before it. Places after the last token are end-of-text, and their
    targets `IGNORED`.

    Args:
        tokens: the token file, (tokens,).
        spans: begin and end of each document in it, (documents, 2).
        size: places of a block.
        end: number of the end-of-text token.
        index: numbers of the blocks; None: all.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        spans: np.ndarray,
        size: int,
        end: int,
        index: np.ndarray | None = None,
    ) -> None:
        self.tokens, self.size, self.end = tokens, size, end
        lengths = spans[:, 1] - spans[:, 0]
        self.ends = np.cumsum(lengths)  # in the stream of these documents
        self.moves = spans[:, 0] - (self.ends - lengths)  # from the stream to the file
        self.length = int(self.ends[-1])
        super().__init__(np.arange(block_count(self.length, size)) if index is None else index)

    def make_batch(self, items: Sequence[EpochIndex]) -> dict[str, Tensor]:
        """Return ``index`` (batch,), ``input_ids`` and ``targets`` (batch, size)."""
        numbers = self.numbers(items)
        places = numbers[:, None] * self.size + np.arange(-1, self.size)
        values = self._read(places.clip(0, self.length - 1))
        beyond = places >= self.length
        values[beyond | (places < 0)] = self.end
        targets = np.where(beyond, IGNORED, values)[:, 1:]
        return {
            "index": torch.from_numpy(numbers),
            "input_ids": torch.from_numpy(np.ascontiguousarray(values[:, :-1])),
            "targets": as_long(targets),
        }

    def _read(self, places: np.ndarray) -> np.ndarray:
        """Return the tokens at these places of the stream, int64."""
        document = np.searchsorted(self.ends, places, side="right")
        values: np.ndarray = self.tokens[places + self.moves[document]].astype(np.int64)
        return values


def block_count(tokens: int, size: int) -> int:
    """Return the number of blocks that hold so many tokens."""
    return -(-tokens // size)
