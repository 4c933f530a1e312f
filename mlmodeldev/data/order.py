"""The order of a torch DataLoader as a function: which indices form batch ``b`` of epoch ``e``.

torch's samplers draw each epoch's order from a generator that goes on from the last one, so a
process that begins in the middle can't have it. Here each epoch's generator is seeded from (seed,
name, epoch), and whatever sampler there is gives its indices under it.

Example::

    order = Order(DataLoader(data, batch_size=32, shuffle=True), seed=0)
    list(order.requests(epoch=3))[17]      # Request(epoch=3, number=17, indices=[...])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from mlmodeldev.data.loader import ALONE, Shard, key
from mlmodeldev.data.randomness import global_states, restore_globals, seed_all

_PRIVATE = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Samplers that draw from nothing but their own ``generator``."""

_CHUNK = 1024
"""How much of the order of any other sampler is drawn at once, apart from all other draws."""


class Request(NamedTuple):
    """One batch, as a loader's process is asked for it.

    Attributes:
        epoch: from 0.
        number: of the batch in the epoch, from 0.
        indices: of the data set; where the loader doesn't batch, one index.
    """

    epoch: int
    number: int
    indices: Any


class Order:
    """The batches of a map-style DataLoader.

    Args:
        loader: its samplers are used, it is never iterated.
        seed: of the trial.
        name: tells loaders of one trial apart.
        shard: this process's rank and their number. A loader without a DistributedSampler is
            shared among the ranks, its batch size being each rank's, as in Lightning.
        train: ranks get equally many examples, some twice, as torch's DistributedSampler does;
            else each example goes to exactly one rank.
        in_order: the data set's order, whatever the sampler: for overfitting. Batches of a sampler
            of the user's that tells no ``batch_size`` stay as they are.

    Attributes:
        sampler: gives the indices, unless a batch sampler of the user's own class gives batches.
        batch_size: examples in a batch; None: it isn't batched, or the batch sampler doesn't tell.
        drop_last: whether a last, smaller batch is left out.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        seed: int = 0,
        name: str = "",
        shard: Shard = ALONE,
        train: bool = True,
        in_order: bool = False,
    ) -> None:
        self._seed, self._path = seed, (("order", name) if name else ("order",))
        self._shard, self._train = shard, train
        batched: Any = loader.batch_sampler
        # torch makes one itself of a sampler and a size; of one that is given to it, it knows none
        # of its parts: `loader.sampler` is a sequential one then, `loader.drop_last` is false
        is_plain = type(batched) is BatchSampler
        self.batch_size: int | None = getattr(batched, "batch_size", None)
        self.drop_last = bool(getattr(batched, "drop_last", False))
        self.sampler: Any = batched.sampler if is_plain else loader.sampler
        of_its_own = not (batched is None or is_plain or (in_order and self.batch_size))
        self._batches: Any = batched if of_its_own else None
        if in_order:
            self.sampler = SequentialSampler(loader.dataset)  # type: ignore[arg-type]
        if any(isinstance(each, DistributedSampler) for each in _layers(self._source)):
            self._shard = ALONE  # it takes this rank's part itself

    @property
    def _source(self) -> Any:
        """What the order is drawn from: batches, or indices."""
        return self.sampler if self._batches is None else self._batches

    def __len__(self) -> int:
        """Batches of this rank in an epoch.

        Raises:
            TypeError: the sampler has no length.
        """
        if self._batches is not None:
            return self._of_rank(len(self._batches))
        count = self._of_rank(len(self.sampler))
        if self.batch_size is None:
            return count
        full, rest = divmod(count, self.batch_size)
        return full if self.drop_last or not rest else full + 1

    def _of_rank(self, count: int) -> int:
        rank, size = self._shard
        return -(-count // size) if self._train else len(range(rank, count, size))

    def requests(self, epoch: int, cycle: int = 0, begun: int = 0) -> Iterator[Request]:
        """Yield this rank's batches of one pass over the data.

        Args:
            epoch: from 0.
            cycle: which pass within the epoch, for a loader that is shorter than another that it
                is combined with.
            begun: batches of the epoch's passes before this one.
        """
        path = (*self._path, epoch, cycle) if cycle else (*self._path, epoch)
        drawn = self._drawn(self._source, key(self._seed, *path), epoch + cycle)
        batches: Iterable[Any] = self._share(drawn)
        size = self.batch_size if self._batches is None else None
        if size is not None:
            batches = _batched(batches, size)
            if self.drop_last:
                batches = (batch for batch in batches if len(batch) == size)
        for number, batch in enumerate(batches, begun):
            yield Request(epoch, number, batch)

    def _share(self, values: Iterator[Any]) -> Iterator[Any]:
        rank, size = self._shard
        if size == 1:
            return values
        whole = list(values)
        if self._train and whole:
            missing = -len(whole) % size
            whole += list(islice(chain.from_iterable(iter(lambda: whole[:], None)), missing))
        return iter(whole[rank::size])

    def _drawn(self, sampler: Any, number: int, epoch: int) -> Iterator[Any]:
        """Iterate over a sampler, its random numbers a function of ``number``."""
        for each in _layers(sampler):
            if hasattr(each, "set_epoch"):
                each.set_epoch(epoch)
        if type(sampler) is DistributedSampler:
            return iter(sampler)
        if type(sampler) in _PRIVATE:
            return _with_generator(sampler, number)
        return _apart(sampler, number)


def _layers(sampler: Any) -> tuple[Any, ...]:
    """Return a sampler, and the one that it draws from, if any."""
    return sampler, getattr(sampler, "sampler", None)


def _with_generator(sampler: Any, number: int) -> Iterator[Any]:
    if isinstance(sampler, SequentialSampler):
        return iter(sampler)
    kept = sampler.generator

    def iterate() -> Iterator[Any]:
        # the sampler reads its generator when the first index is drawn
        sampler.generator = torch.Generator().manual_seed(number)
        try:
            indices = iter(sampler)
            first = next(indices, None)
        finally:
            sampler.generator = kept
        if first is not None:
            yield first
            yield from indices

    return iterate()


def _apart(sampler: Any, number: int) -> Iterator[Any]:
    """Iterate in chunks under generators of its own; what others draw between has no effect."""
    for each in _layers(sampler):
        if isinstance(getattr(each, "generator", None), torch.Generator):
            each.generator.manual_seed(number)
    mine: Any = None
    values: Iterator[Any] | None = None
    while True:
        kept = global_states()
        try:
            if values is None:
                seed_all(number)
                values = iter(sampler)
            else:
                restore_globals(mine)
            chunk = list(islice(values, _CHUNK))
            mine = global_states()
        finally:
            restore_globals(kept)
        if not chunk:
            return
        yield from chunk


def _batched(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    values = iter(values)
    while batch := list(islice(values, size)):
        yield batch
