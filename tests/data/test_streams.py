"""Streams that users wrote, taken over: each rank, epoch and worker draws numbers of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from mlmodeldev.data.loader import Position, Shard, key
from mlmodeldev.data.takeover import Place, ResumableLoader, StreamLoader
from tests.data.test_takeover import Noisy, disturbed, values


class Stream(IterableDataset[Any]):
    """Shuffles by a buffer, by Python's generator."""

    def __iter__(self) -> Iterator[float]:
        buffer: list[float] = []
        for number in range(40):
            buffer.append(number + random.random())
            if len(buffer) > 8:
                yield buffer.pop(random.randrange(len(buffer)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_where_it_was_left(workers: int) -> None:
    def stream(batch: int) -> Any:
        plain = DataLoader(Stream(), batch_size=5, num_workers=workers)
        return StreamLoader(plain, Place(seed=3, position=lambda: Position(1, batch)))

    whole = values(disturbed(stream(0)))
    assert len(whole) > 5
    assert values(disturbed(stream(4))) == whole[4:]


class Draws(IterableDataset[Any]):
    """Draws from all global generators, of a worker where there is one."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(4):
            yield torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])


def drawn(rank: int, epoch: int = 0, workers: int = 1, kind: Any = StreamLoader) -> list[Any]:
    data = Draws() if kind is StreamLoader else Noisy()
    plain: DataLoader[Any] = DataLoader(data, batch_size=2, num_workers=workers)
    made = kind(plain, Place(3, position=lambda: Position(epoch, 0), shard=Shard(rank, 2)))
    numbers = [x for batch in values(made) for row in batch for x in row[-3:]]
    made.close()
    return numbers


@pytest.mark.parametrize("kind", [StreamLoader, ResumableLoader])
def test_each_rank_and_epoch_draws_its_own(kind: Any) -> None:
    runs = [drawn(rank, epoch, kind=kind) for rank in range(2) for epoch in range(2)]
    for n, mine in enumerate(runs):
        assert mine
        assert all(not set(mine) & set(other) - {0.0} for other in runs[:n])
    assert drawn(1, 1, kind=kind) == runs[3]


def test_a_stream_of_one_rank_draws_what_it_did() -> None:
    """Trials that were begun before ranks drew numbers of their own go on."""
    seeded = torch.Generator().manual_seed(key(3, "stream", "", 1, 0))
    plain: DataLoader[Any] = DataLoader(Draws(), batch_size=2, num_workers=1, generator=seeded)
    assert drawn(0, 1) == [x for batch in values(plain) for row in batch for x in row]
