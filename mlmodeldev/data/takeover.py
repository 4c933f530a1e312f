"""Loaders that users wrote, made to resume: the same batches, whatever process makes them.

A map-style `torch.utils.data.DataLoader` becomes a `ResumableLoader`: its order, and the random
numbers of its examples, of the collate function and of the hooks that move a batch are functions of
(seed, epoch, number of the batch), on any number of workers. What has no order to ask for
(IterableDataset, an iterable of one's own) is read and dropped up to where training stood.

Example::

    ResumableLoader(DataLoader(data, batch_size=32, shuffle=True), Place(seed=0, position=...))
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler, get_worker_info

from mlmodeldev.data.loader import ALONE, Position, Shard, key, outlive_sigterm
from mlmodeldev.data.order import Order, Request
from mlmodeldev.data.randomness import OwnGenerators, seed_all, seed_cpu


@dataclass(frozen=True)
class Place:
    """Where a loader stands in a trial.

    Attributes:
        seed: of the trial.
        name: tells its loaders apart; empty: the only one of training.
        train: whether it is one of training's.
        shard: this process's rank, and their number.
        position: tells the epoch and the batches done; asked when the first batch is.
        in_order: no shuffling, for overfitting.
        seeds_moves: seed before each batch is handed on, for hooks that draw while moving it.
    """

    seed: int = 0
    name: str = ""
    train: bool = True
    shard: Shard = ALONE
    position: Callable[[], Position] = lambda: Position(0, 0)
    in_order: bool = False
    seeds_moves: bool = False

    def drawn(self, epoch: int) -> int:
        """Return the epoch whose order and random numbers an epoch has: overfitting repeats one."""
        return 0 if self.in_order else epoch

    def key(self, purpose: str, *path: int) -> int:
        """Return a number of its own for a purpose."""
        return key(self.seed, purpose, self.name, *path)


class _Pass(NamedTuple):
    """One pass over the data: an epoch has several, where a longer loader is combined with it.

    Attributes:
        epoch: of training.
        cycle: passes of the epoch before this one.
        begun: batches of those.
        done: batches of the epoch that are done; those of them that are this pass's are dropped.
    """

    epoch: int
    cycle: int
    begun: int
    done: int


class _Loader:
    """What all loaders here have: the loader of the user, and no state that a checkpoint holds.

    The trainer tells where an epoch's first pass is entered. Where the next one of the epoch begins
    is counted here, for Lightning may have fetched a batch more than its progress says. A loader
    that had run out before a resume runs out at once after it: Lightning's ``max_size_cycle`` ends
    the epoch when all have, and its ``max_size`` gives None for one that has.
    """

    def __init__(self, loader: Any, place: Place) -> None:
        self.loader, self.place = loader, place
        self._next: _Pass | None = None

    def __getattr__(self, name: str) -> Any:
        """Answer for the user's loader: its dataset, batch_size and so on."""
        if name in ("loader", "place"):  # not yet there, while a copy is made
            raise AttributeError(name)
        return getattr(self.loader, name)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the place is in the trainer's progress. Tells Lightning: resumable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accept what `state_dict` gave."""
        self._next = None

    def __iter__(self) -> Iterator[Any]:
        # A generator: nothing of this runs before the first batch is asked for.
        place, (epoch, done) = self.place, self.place.position()
        at, self._next = self._next, None
        # none or one batch is fetched ahead; else this is no restart, but a beginning
        ran_out = at is not None and at.epoch == epoch and at.done - done in (0, 1)
        if at is None or not ran_out:
            at = _Pass(epoch, 0, 0, done)
        items, after = self._enter(at)
        while ran_out and items is None and after.begun > at.begun:
            at = after
            items, after = self._enter(at)
        if items is not None:
            number = at.done
            for batch in self._batches(items):
                if place.seeds_moves:
                    seed_all(place.key("move", place.shard.rank, place.drawn(epoch), number))
                number += 1
                yield batch
            after = _Pass(epoch, at.cycle + 1, number, number)
        if place.train:
            self._next = after

    def _enter(self, at: _Pass) -> tuple[Iterator[Any] | None, _Pass]:
        """Return what a pass has left; None, and the pass that follows, where that is nothing."""
        items = self._items(at)
        dropped = sum(1 for _ in islice(items, at.done - at.begun))
        first = next(items, _END)
        if first is _END:
            return None, _Pass(at.epoch, at.cycle + 1, at.begun + dropped, at.done)
        return chain((first,), items), at

    def _items(self, at: _Pass) -> Iterator[Any]:
        """Return all that a pass gives, before it is made into batches."""
        raise NotImplementedError

    def _batches(self, items: Iterator[Any]) -> Iterator[Any]:
        return items


class ResumableLoader(_Loader):
    """A map-style DataLoader whose batches are functions of seed, epoch and number.

    Args:
        loader: of the user; never iterated itself.
        place: where it stands in the trial.
        workers, prefetch, pin: instead of the loader's own, where not None.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        place: Place,
        workers: int | None = None,
        prefetch: int | None = None,
        pin: bool | None = None,
    ) -> None:
        super().__init__(loader, place)
        self.order = Order(loader, place.seed, place.name, place.shard, place.train, place.in_order)
        self._source = SeededDataset(loader, place)
        self._workers = loader.num_workers if workers is None else workers
        self._prefetch = loader.prefetch_factor if prefetch is None else prefetch
        self._pin = loader.pin_memory if pin is None else pin
        self._requests = _Requests()
        self._torch: DataLoader[Any] | None = None
        self._running: Any = None

    @property
    def sampler(self) -> Any:
        """What gives the indices; a sequential sampler in overfitting."""
        return self.order.sampler

    @property
    def batch_size(self) -> int | None:
        """Examples in a batch of this rank; None: not batched, or its batch sampler tells none."""
        return self.order.batch_size

    @property
    def drop_last(self) -> bool:
        """Whether a last, smaller batch is left out."""
        return self.order.drop_last

    def __len__(self) -> int:
        """Batches in a whole epoch on this rank."""
        return len(self.order)

    def _items(self, at: _Pass) -> Iterator[Request]:
        return self.order.requests(self.place.drawn(at.epoch), at.cycle, at.begun)

    def _batches(self, items: Iterator[Request]) -> Iterator[Any]:
        if not self._workers and not self._pin:
            return map(self._source.__getitem__, items)
        self._requests.requests = items
        if self._torch is None:
            self._torch = self._make()
        self._running = iter(self._torch)
        batches: Iterator[Any] = self._running
        return batches

    def _make(self) -> DataLoader[Any]:
        mine = self.loader
        return DataLoader(
            self._source,
            batch_size=None,
            sampler=self._requests,
            collate_fn=_unchanged,
            num_workers=self._workers,
            pin_memory=self._pin,
            timeout=mine.timeout if self._workers else 0,
            worker_init_fn=_WorkerInit(mine.worker_init_fn),
            multiprocessing_context=mine.multiprocessing_context if self._workers else None,
            generator=torch.Generator().manual_seed(self.place.key("workers")),
            prefetch_factor=(self._prefetch or 2) if self._workers else None,
            persistent_workers=bool(self._workers) and bool(mine.persistent_workers),
        )

    def close(self) -> None:
        """End the worker processes now; see `ExactLoader.close`."""
        if hasattr(self._running, "_shutdown_workers"):
            self._running._shutdown_workers()
        self._running = self._torch = None


class StreamLoader(_Loader):
    """Any other iterable: what came before the place where training stood is read and dropped.

    Where its order depends on global random numbers only, and its workers are not kept from epoch
    to epoch, what follows is what an undisturbed process sees.
    """

    @property
    def sampler(self) -> Any:
        """The user's; in overfitting a sequential one, for Lightning would put another there."""
        if self.place.in_order:
            return SequentialSampler(self.loader.dataset)
        return self.loader.sampler

    def __len__(self) -> int:
        """As the user's loader answers; a TypeError where it has no length."""
        return len(self.loader)

    def _items(self, at: _Pass) -> Iterator[Any]:
        place, loader = self.place, self.loader
        rank, epoch, cycle = place.shard.rank, place.drawn(at.epoch), at.cycle
        dataset: Any = getattr(loader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        if isinstance(loader, DataLoader):
            # torch seeds the workers from it; on the first rank as ever, for trials that go on
            path = ("workers", rank, epoch, cycle) if rank else ("stream", epoch, cycle)
            loader.generator = torch.Generator().manual_seed(place.key(*path))
        seed_all(place.key("stream", rank, epoch, cycle))
        batches = iter(loader)
        number = 0
        while True:
            # what training draws between two batches must not reach the stream
            seed_all(place.key("stream", rank, epoch, cycle, number))
            batch = next(batches, _END)
            if batch is _END:
                return
            number += 1
            yield batch

    def close(self) -> None:
        """Nothing is kept open here."""


_END = object()


class _Requests:
    """What torch's loader takes for a sampler: the requests of the epoch at hand."""

    def __init__(self) -> None:
        self.requests: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.requests

    def __len__(self) -> int:
        raise TypeError("an epoch's length is the order's")


class _WorkerInit:
    """What a loader's process does first: live through SIGTERM, then as the user says."""

    def __init__(self, own: Callable[[int], None] | None) -> None:
        self._own = own

    def __call__(self, worker: int) -> None:
        outlive_sigterm(worker)
        information: Any = get_worker_info()
        # the user's function looks for the user's data set there
        object.__setattr__(information, "dataset", information.dataset.dataset)
        if self._own is not None:
            self._own(worker)


def _unchanged(batch: Any) -> Any:
    return batch


class SeededDataset(Dataset[Any]):
    """A loader's data set and collate function in one: a whole batch for each `Request`.

    All generators are seeded by the batch's number before it is made. Seeds for each example would
    cost as much as most examples do, and a batch is what is made again after a resume.

    Args:
        loader: its dataset and collate function are used.
        place: of the seeds.
    """

    def __init__(self, loader: DataLoader[Any], place: Place) -> None:
        self.dataset: Any = loader.dataset
        self._collate: Callable[[Any], Any] = loader.collate_fn
        self._batched = loader.batch_sampler is not None
        self._key = place.key("batch", place.shard.rank)
        self._own: OwnGenerators | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process."""
        return {**self.__dict__, "_own": None}

    def __getitem__(self, request: Request) -> Any:
        where = struct.pack("<qqq", self._key, request.epoch, request.number)
        number = int.from_bytes(blake2b(where, digest_size=8).digest(), "little") >> 1
        seed_cpu(number)
        if self._own is None:  # not before: a worker's function may have put some there
            self._own = OwnGenerators([self.dataset, self._collate])
        self._own.seed(number)
        return self._collate(self._examples(request.indices))

    def _examples(self, indices: Any) -> Any:
        if not self._batched:
            return self.dataset[indices]
        if getattr(self.dataset, "__getitems__", None):
            return self.dataset.__getitems__(indices)
        return [self.dataset[index] for index in indices]
