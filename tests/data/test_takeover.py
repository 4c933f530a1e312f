"""Loaders that users wrote, taken over: order and draws are functions of epoch and batch."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from mlmodeldev.data.loader import Position, Shard
from mlmodeldev.data.takeover import Place, ResumableLoader

SIZE = 23
START = Position(0, 0)


class Numbers(Dataset[int]):
    """The numbers from 0 on."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> int:
        return int(index)


class Noisy(Dataset[Any]):
    """Draws from every global generator, and from two of its own, in some examples only."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(3)
        self.parts = [torch.Generator().manual_seed(1)]

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> Any:
        drawn = [float(index)]
        if index % 5 == 0:
            drawn.append(random.random())
            drawn.append(float(np.random.randn()))
            drawn.append(float(torch.rand(1)))
        drawn.append(float(self.own.random()))
        drawn.append(float(torch.rand(1, generator=self.parts[0])))
        return torch.tensor(drawn + [0.0] * (6 - len(drawn)), dtype=torch.float64)


def noisy_collate(examples: list[Any]) -> Any:
    return default_collate(examples) + random.random() * np.random.rand()


class Buckets(Sampler[list[int]]):
    """A batch sampler that shuffles batches by Python's generator, drawing while it goes."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(6):
            yield random.sample(range(SIZE), random.randint(1, 4))


class Countdown(Sampler[int]):
    """A sampler that uses its epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        return iter([(i + self.epoch) % SIZE for i in range(SIZE)])


class Halved(DistributedSampler[Any]):
    """A batch sampler that takes its rank's part itself."""

    def __iter__(self) -> Iterator[Any]:
        return iter([[index, index] for index in super().__iter__()])


class Named(BatchSampler):
    """A batch sampler of a class of its own."""


def batches(sampler: Any, drop_last: bool = False) -> DataLoader[Any]:
    return DataLoader(Numbers(), batch_sampler=BatchSampler(sampler, 4, drop_last))


ODD = [float(i % 2) for i in range(SIZE)]


def weighted() -> DataLoader[Any]:
    sampler = WeightedRandomSampler([1.0 + i for i in range(SIZE)], 20)
    return DataLoader(Numbers(), batch_size=4, sampler=sampler)


LOADERS: dict[str, Callable[[], DataLoader[Any]]] = {
    "shuffled": lambda: DataLoader(Numbers(), batch_size=4, shuffle=True),
    "in order": lambda: DataLoader(Numbers(), batch_size=4, drop_last=True),
    "with replacement": lambda: DataLoader(
        Numbers(), batch_size=4, sampler=RandomSampler(Numbers(), replacement=True, num_samples=50)
    ),
    "own generator": lambda: DataLoader(
        Numbers(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "weighted": weighted,
    "subset": lambda: DataLoader(Numbers(), batch_size=4, sampler=SubsetRandomSampler(range(9))),
    "buckets": lambda: DataLoader(Numbers(), batch_sampler=Buckets()),
    "batches of a sampler": lambda: batches(RandomSampler(Numbers())),
    "whole batches": lambda: batches(RandomSampler(Numbers()), drop_last=True),
    "batches in order": lambda: batches(range(SIZE), drop_last=True),
    "batches of a subset": lambda: batches(SubsetRandomSampler(range(9))),
    "batches by weight": lambda: batches(WeightedRandomSampler(ODD, 30)),
    "own sampler": lambda: DataLoader(Numbers(), batch_size=4, sampler=Countdown()),
    "not batched": lambda: DataLoader(Numbers(), batch_size=None, shuffle=True),
    "noisy": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, collate_fn=noisy_collate),
    "noisy weighted": lambda: DataLoader(
        Noisy(), batch_size=4, sampler=WeightedRandomSampler([1.0] * SIZE, 40)
    ),
}


def loader(name: str, at: Position = START, workers: int = 0, **place: Any) -> Any:
    return ResumableLoader(
        LOADERS[name](), Place(seed=7, position=lambda: at, **place), workers=workers
    )


def values(batches: Any) -> list[Any]:
    return [b.tolist() if isinstance(b, torch.Tensor) else b for b in batches]


def disturbed(batches: Any) -> Iterator[Any]:
    """Draw between the batches, as a training step does."""
    for number, batch in enumerate(batches):
        random.seed(number)
        np.random.seed(number + 11)
        torch.manual_seed(number)
        yield batch


@pytest.mark.parametrize("name", LOADERS)
def test_an_epoch_goes_on_where_it_was_left(name: str) -> None:
    whole = values(loader(name, Position(3, 0)))
    assert len(whole) == len(loader(name))
    for first in (1, 2, len(whole) - 1):
        random.seed(first)
        torch.manual_seed(first)
        rest = values(disturbed(loader(name, Position(3, first))))
        assert rest == whole[first:]


@pytest.mark.parametrize("name", ["shuffled", "buckets", "noisy", "noisy weighted", "not batched"])
def test_workers_change_nothing(name: str) -> None:
    alone = values(loader(name, Position(2, 1)))
    made = loader(name, Position(2, 1), workers=2)
    assert values(made) == alone
    made.close()


OWN_ORDER = ["shuffled", "weighted", "buckets", "noisy", "own sampler", "batches of a sampler"]
OF_BATCHES = ["whole batches", "batches of a subset", "batches by weight"]


@pytest.mark.parametrize("name", OWN_ORDER + OF_BATCHES)
def test_each_epoch_has_an_order_of_its_own(name: str) -> None:
    epochs = [values(loader(name, Position(epoch, 0))) for epoch in range(4)]
    assert all(a != b for n, a in enumerate(epochs) for b in epochs[:n])


def test_an_epoch_has_each_example_once() -> None:
    seen = [index for batch in values(loader("shuffled", Position(5, 0))) for index in batch]
    assert sorted(seen) == list(range(SIZE))
    assert seen != sorted(seen)


def test_examples_of_a_batch_draw_different_numbers() -> None:
    rows = [row for batch in values(loader("noisy")) for row in batch]
    assert len({row[-1] for row in rows} | {row[1] for row in rows}) > SIZE


def test_plain_data_are_what_torch_gives() -> None:
    data = TensorDataset(torch.arange(10.0), torch.arange(10))
    plain = DataLoader(data, batch_size=4)
    taken = ResumableLoader(plain, Place())
    for mine, theirs in zip(taken, plain, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("name", [*OF_BATCHES, "batches of a sampler", "batches in order"])
def test_a_batch_sampler_decides_as_in_torchs_loader(name: str) -> None:
    """torch's loader knows nothing of the sampler inside of one that it is given."""
    theirs, made = LOADERS[name](), loader(name)
    mine = values(made)
    assert [len(batch) for batch in mine] == [len(batch) for batch in theirs]
    assert len(made) == len(theirs)
    wanted = {"batches of a subset": set(range(9)), "batches by weight": set(range(1, SIZE, 2))}
    assert {i for batch in mine for i in batch} <= wanted.get(name, set(range(SIZE)))
    if name == "batches of a subset":
        assert sorted(i for batch in mine for i in batch) == list(range(9))
    if name == "batches in order":
        assert mine == values(theirs)
    inside: Any = theirs.batch_sampler
    assert (type(made.sampler), made.batch_size) == (type(inside.sampler), 4)
    assert made.drop_last == inside.drop_last


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["shuffled", "in order", "weighted", "own sampler"])
def test_ranks_share_an_epoch(name: str, size: int) -> None:
    parts = [values(loader(name, shard=Shard(rank, size))) for rank in range(size)]
    lengths = {len(part) for part in parts}
    assert lengths == {len(loader(name, shard=Shard(0, size)))}, "ranks step together"
    seen = sorted(i for part in parts for batch in part for i in batch)
    whole = sorted(i for batch in values(loader(name)) for i in batch)
    if name != "in order":  # whose last batches are dropped
        assert set(seen) == set(whole)
        assert len(seen) - len(whole) < size, "a few twice, so that ranks get equally many"


def test_validation_gives_each_example_to_one_rank() -> None:
    made = [loader("shuffled", shard=Shard(rank, 3), train=False) for rank in range(3)]
    seen = [i for each in made for batch in values(each) for i in batch]
    assert sorted(seen) == list(range(SIZE))
    assert [len(each) for each in made] == [len(values(each)) for each in made]


def test_a_distributed_sampler_is_left_its_share() -> None:
    parts = []
    for rank in range(2):
        sampler: Any = DistributedSampler(Numbers(), num_replicas=2, rank=rank, shuffle=True)
        made = ResumableLoader(
            DataLoader(Numbers(), batch_size=4, sampler=sampler), Place(shard=Shard(rank, 2))
        )
        parts += [i for batch in values(made) for i in batch]
    assert set(parts) == set(range(SIZE))
    assert len(parts) == 24


SHARED: dict[str, Callable[[Any], DataLoader[Any]]] = {
    "in a batch sampler": batches,
    "whole batches": lambda sampler: batches(sampler, drop_last=True),
    "in one of its own class": lambda sampler: DataLoader(
        Numbers(), batch_sampler=Named(sampler, 4, drop_last=False)
    ),
    "a batch sampler itself": lambda sampler: DataLoader(
        Numbers(), batch_sampler=Halved(Numbers(), sampler.num_replicas, sampler.rank)
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_distributed_sampler_inside_is_left_its_share(name: str) -> None:
    seen: set[int] = set()
    for rank in range(2):
        plain = SHARED[name](DistributedSampler(Numbers(), num_replicas=2, rank=rank))
        whole = values(ResumableLoader(plain, Place(shard=Shard(rank, 2))))
        at = Place(position=lambda: Position(3, 2), shard=Shard(rank, 2))
        rest = values(ResumableLoader(plain, at))
        inside: Any = plain.batch_sampler
        for epoch, mine in ((0, whole), (3, rest)):
            getattr(inside, "sampler", inside).set_epoch(epoch)
            assert mine == values(plain)[2 if epoch else 0 :]
        assert len(ResumableLoader(plain, at)) == len(whole)
        seen |= {i for batch in whole for i in batch}
    assert len(seen) >= (16 if name == "whole batches" else SIZE)


def test_a_shorter_loader_begins_a_new_pass() -> None:
    """Lightning iterates over it again within the epoch; the place is counted in batches of it."""

    def passes(first: int) -> list[list[Any]]:
        done = first
        made = ResumableLoader(
            LOADERS["subset"](), Place(seed=7, position=lambda: Position(0, done))
        )
        given = []
        for _ in range(3):
            given.append(values(made))
            done += len(given[-1])
        return given

    whole = passes(0)
    assert all(sorted(i for batch in each for i in batch) == list(range(9)) for each in whole)
    assert whole[0] != whole[1] != whole[2]
    assert passes(4)[:2] == [[], whole[1][1:]], "that it has run out comes again"


def test_the_users_worker_sees_the_users_data() -> None:
    def init(worker: int) -> None:
        information = torch.utils.data.get_worker_info()
        assert information is not None
        information.dataset.offset = 100  # type: ignore[attr-defined]

    class Offset(Numbers):
        offset = 0

        def __getitem__(self, index: int) -> int:
            return int(index) + self.offset

    plain = DataLoader(Offset(), batch_size=4, num_workers=1, worker_init_fn=init)
    made = ResumableLoader(plain, Place())
    assert values(made)[0] == [100, 101, 102, 103]
    made.close()


def test_workers_end_when_a_loader_is_closed() -> None:
    made = loader("noisy", workers=2)
    batches = iter(made)
    next(batches)
    children = multiprocessing.active_children()
    assert len(children) >= 2
    made.close()
    for child in children:
        child.join(10)
    assert not any(child.is_alive() for child in children)


def test_overfitting_takes_the_order_of_the_data() -> None:
    made = loader("shuffled", in_order=True)
    assert values(made)[0] == [0, 1, 2, 3]
    assert isinstance(made.sampler, torch.utils.data.SequentialSampler)
    assert values(loader("whole batches", in_order=True))[0] == [0, 1, 2, 3]
    again = values(loader("buckets", Position(4, 0), in_order=True))
    assert again == values(loader("buckets")), "no size is told: the first epoch's, each time"


def test_moving_a_batch_is_seeded_by_its_number() -> None:
    def draws(first: int) -> list[float]:
        made = loader("shuffled", Position(0, first), seeds_moves=True)
        return [random.random() + float(torch.rand(1)) for _ in made]

    assert draws(2) == draws(0)[2:]
