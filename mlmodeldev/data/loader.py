"""A loader without state: which examples form batch ``b`` of epoch ``e`` is a function.

Lightning's own resume replays a different permutation after a mid-epoch checkpoint, so some
examples are seen twice and others never. Here the order comes from the seed and the epoch, and
the place to begin from the trainer's progress, which a checkpoint holds anyway.

A dataset is any map-style dataset whose ``__getitem__`` takes an `EpochIndex` (index, epoch), so
that augmentation can be a function of both. One that has ``make_batch(items)`` makes whole batches
itself, which for small examples in memory is several times quicker.

Example::

    ExactLoader(dataset, batch_size=64, seed=0, shuffle=True, drop_last=True, progress=...)
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import queues
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset

from mlmodeldev.data.shared_memory import EXIT_STATUS
from mlmodeldev.errors import UsageError


@dataclass(frozen=True, slots=True)
class EpochIndex:
    """What a dataset is asked for."""

    index: int
    epoch: int


class Position(NamedTuple):
    """Where training stands: the epoch, and how many of its batches are done."""

    epoch: int
    batch: int


class Shard(NamedTuple):
    """This process's part of each global batch."""

    rank: int = 0
    size: int = 1


ALONE = Shard()
"""A process that has the whole batch."""


class Sized(Protocol):
    """A dataset that knows its length."""

    def __len__(self) -> int: ...
    def __getitem__(self, item: Any) -> Any: ...


class _Batches:
    """Batch sampler: the items of each batch of this rank, from a given place on."""

    def __init__(self, count: int, batch: int, seed: int, shuffle: bool, drop: bool) -> None:
        self.count, self.batch, self.seed = count, batch, seed
        self.shuffle, self.drop = shuffle, drop
        self.start = Position(0, 0)
        self.shard = Shard()

    def __len__(self) -> int:
        full, rest = divmod(self.count, self.batch)
        return full if self.drop or not rest else full + 1

    def __iter__(self) -> Iterator[list[EpochIndex]]:
        epoch, first = self.start
        rank, size = self.shard
        order = permutation(self.count, self.seed, epoch) if self.shuffle else np.arange(self.count)
        for number in range(first, len(self)):
            batch = order[number * self.batch : (number + 1) * self.batch]
            mine = [EpochIndex(int(index), epoch) for index in batch[rank::size]]
            if mine:
                yield mine


class _Batched(Dataset[Any]):
    """A dataset that makes whole batches, as torch's DataLoader asks for them."""

    def __init__(self, make: Callable[[list[EpochIndex]], Any]) -> None:
        self.__getitems__ = make


_LAST_SECONDS = 120


def outlive_sigterm(worker: int) -> None:
    """Let a loader's process live on for a while when Slurm signals every process of a trial.

    torch's own handler would end it, and its death raises an error in the middle of whatever the
    trial does, such as saving. The other signals only set a flag here, as in the trial itself.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_LAST_SECONDS))
    queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: Exception, batch: object) -> NoReturn:
    """End a worker that can't hand a batch over: it would be waited for, for ever.

    Where the node's shared memory is full, or a socket can't be opened; by default the queue's
    thread prints that and goes on.
    """
    print(
        f"a loader's worker can't hand over a batch: {error}; /dev/shm may be full,"
        " processing.num_workers=0 needs none",
        file=sys.stderr,
        flush=True,
    )
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    os._exit(EXIT_STATUS if full else 1)


def _unchanged(batch: Any) -> Any:
    return batch


class ExactLoader:
    """Iterate over batches, beginning at the place that ``progress`` tells.

    Args:
        dataset: items are asked for as ``dataset[EpochIndex(index, epoch)]``, or all of a batch as
            ``dataset.make_batch(items)``, which returns the batch.
        batch_size: examples in a GLOBAL batch; each rank takes every ``size``-th of them.
        seed: of the order.
        shuffle: a new permutation for each epoch; else the dataset's order.
        drop_last: leave the last, smaller batch out. In training it keeps all ranks' batches of
            one size, so that gradients are the same for any number of devices. The permutation
            differs between epochs, so no example is always left out.
        progress: tells the `Position`; asked when the first batch is (not when an iterator is made,
            for Lightning makes it before it restores a checkpoint).
        shard: this process's rank, and the number of processes.
        workers: loader processes; 0 loads in this process.
        prefetch: batches that each worker loads ahead.
        pin: page-locked memory.
        collate: turns a list of examples into a batch; None: torch's own. Not for ``make_batch``.

    Raises:
        UsageError: the batch is larger than the data, or doesn't divide among the devices.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        seed: int,
        shuffle: bool = False,
        drop_last: bool = False,
        progress: Callable[[], Position] = lambda: Position(0, 0),
        shard: Shard = ALONE,
        workers: int = 0,
        prefetch: int = 2,
        pin: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        _check(len(dataset), batch_size, drop_last, shard.size)
        self.dataset = dataset
        self.batch_sampler = _Batches(len(dataset), batch_size, seed, shuffle, drop_last)
        self.batch_sampler.shard = shard
        self._progress = progress
        source: Dataset[Any] = dataset  # type: ignore[assignment]
        if hasattr(dataset, "make_batch"):
            source, collate = _Batched(dataset.make_batch), _unchanged
        self._loader: DataLoader[Any] = DataLoader(
            source,
            batch_sampler=self.batch_sampler,
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            persistent_workers=workers > 0,
            pin_memory=pin,
            collate_fn=collate,
            worker_init_fn=outlive_sigterm,
        )

    def __len__(self) -> int:
        """Batches in a whole epoch on this rank."""
        sampler = self.batch_sampler
        if sampler.drop:
            return len(sampler)
        # the last batch may be too small to reach every rank
        rest = sampler.count - (len(sampler) - 1) * sampler.batch
        return len(sampler) - (rest <= sampler.shard.rank)

    def __iter__(self) -> Iterator[Any]:
        # A generator: nothing of this runs before the first batch is asked for.
        self.batch_sampler.start = self._progress()
        yield from self._loader

    def close(self) -> None:
        """End the worker processes now.

        Left to the end of the process they are told by SIGTERM, which they ignore for the sake of
        a trial that still has to save its state, and the process waits for seconds.
        """
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()
            self._loader._iterator = None

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the place is in the trainer's progress. Tells Lightning: resumable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accept what `state_dict` gave."""


def _check(count: int, batch_size: int, drop_last: bool, world_size: int) -> None:
    if drop_last and batch_size > count:
        raise UsageError(
            f"processing.batch_size={batch_size}: there are only {count} training examples"
        )
    if drop_last and batch_size % world_size:
        raise UsageError(
            f"processing.batch_size={batch_size}: must be a multiple of the {world_size} devices"
            " that share each batch"
        )


def key(seed: int, *path: int | str) -> int:
    """Return a 63-bit number that depends on the seed and on each part of the path.

    >>> key(0, "order", 1) == key(0, "order", 1), key(0, "order", 1) == key(0, "order", 2)
    (True, False)
    """
    return _number(_digest(seed, *path))


def keys(numbers: Iterable[int], seed: int, *path: int | str) -> np.ndarray:
    """Return ``key(seed, *path, number)`` of each number, int64; the path is read once.

    >>> keys([3, 4], 0, "augment")[1] == key(0, "augment", 4)
    True
    """
    begun = _digest(seed, *path)
    drawn = []
    for number in numbers:
        digest = begun.copy()
        digest.update(b"i" + struct.pack("<q", number))
        drawn.append(_number(digest))
    return np.array(drawn, dtype=np.int64)


def _digest(*path: int | str) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=8)
    for part in path:
        if isinstance(part, str):
            text = part.encode()
            digest.update(b"s" + struct.pack("<q", len(text)) + text)
        else:
            digest.update(b"i" + struct.pack("<q", part))
    return digest


def _number(digest: hashlib.blake2b) -> int:
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(seed: int, *path: int | str) -> np.random.Generator:
    """Return a numpy generator of its own for a purpose (Philox, counter-based; Salmon 2011)."""
    return np.random.Generator(np.random.Philox(key(seed, *path)))


def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch: a permutation of ``range(size)``, int64."""
    return generator(seed, "order", epoch).permutation(size)
