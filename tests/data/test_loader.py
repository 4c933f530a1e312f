"""The exact loader: each example once an epoch, resumed anywhere, shared among any devices."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.data.loader import EpochIndex, ExactLoader, Position, Shard
from mlmodeldev.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


class Numbers:
    """Answers with what it was asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: EpochIndex) -> tuple[int, int]:
        return item.index, item.epoch


def batches(
    count: int = 23, epoch: int = 0, first: int = 0, **options
) -> list[list[tuple[int, int]]]:
    options = {"batch_size": 4, "seed": 0, "shuffle": True, "collate": list, **options}
    loader = ExactLoader(Numbers(count), progress=lambda: Position(epoch, first), **options)
    return list(loader)


def indices(loaded: list[list[tuple[int, int]]]) -> list[int]:
    return [index for batch in loaded for index, _ in batch]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_holds_each_example_once_and_says_its_number(epoch):
    loaded = batches(epoch=epoch)
    assert sorted(indices(loaded)) == list(range(23))
    assert {number for batch in loaded for _, number in batch} == {epoch}
    assert [len(batch) for batch in loaded] == [4, 4, 4, 4, 4, 3]


def test_a_worker_outlives_the_signals_that_slurm_sends_to_every_process():
    loader = ExactLoader(Numbers(80), 4, seed=0, workers=1, prefetch=1, collate=list)
    loaded = iter(loader)
    first = next(loaded)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    assert indices([first, *loaded]) == list(range(80))
    assert worker.is_alive()
    loader.close()
    assert not worker.is_alive()


def test_epochs_and_seeds_differ_in_order():
    orders = [tuple(indices(batches(epoch=e, seed=s))) for e in range(3) for s in range(3)]
    assert len(set(orders)) == 9


def test_without_shuffling_the_datasets_order_is_kept():
    assert indices(batches(shuffle=False, epoch=3)) == list(range(23))


def test_dropping_the_last_batch_leaves_nobody_out_for_ever():
    seen = set()
    for epoch in range(8):
        loaded = batches(drop_last=True, epoch=epoch)
        assert [len(batch) for batch in loaded] == [4] * 5
        seen |= set(indices(loaded))
    assert seen == set(range(23))


@pytest.mark.parametrize("workers", [0, 2])
def test_from_any_place_on_the_rest_is_that_of_the_undisturbed_epoch(workers):
    whole = batches(epoch=2)
    for first in (0, 1, 3, 5, 6) if workers == 0 else (3,):
        assert batches(epoch=2, first=first, workers=workers) == whole[first:]


def test_workers_bring_the_same_batches_in_the_same_order():
    for drop in (False, True):
        assert batches(workers=2, drop_last=drop) == batches(drop_last=drop)


def test_workers_that_stay_alive_follow_the_epoch_and_the_place():
    place = [Position(0, 0)]
    loader = ExactLoader(
        Numbers(23), 4, seed=0, shuffle=True, workers=2, collate=list, progress=lambda: place[0]
    )
    for epoch, first in ((0, 4), (1, 0), (5, 2)):
        place[0] = Position(epoch, first)
        assert list(loader) == batches(epoch=epoch)[first:]


@pytest.mark.parametrize(("size", "batch"), [(2, 4), (3, 6), (4, 4), (4, 8)])
@pytest.mark.parametrize("drop", [True, False])
def test_the_ranks_batches_together_are_the_single_processs(size, batch, drop):
    count = 23
    whole = batches(count, batch_size=batch, drop_last=drop)
    ranks = [
        batches(count, batch_size=batch, drop_last=drop, shard=Shard(rank, size))
        for rank in range(size)
    ]
    together = itertools.zip_longest(*ranks, fillvalue=[])
    assert [sorted(itertools.chain(*parts)) for parts in together] == [sorted(one) for one in whole]
    if drop:  # all ranks take as many steps, with as many examples
        assert {tuple(map(len, rank)) for rank in ranks} == {(batch // size,) * len(whole)}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [8, 9, 10, 11, 12, 1])
@pytest.mark.parametrize("drop", [True, False])
def test_the_length_is_the_number_of_batches(size, count, drop):
    if drop and count < 12:
        count += 12
    for rank in range(size):
        loader = ExactLoader(
            Numbers(count), 12 if drop else 4, 0, drop_last=drop, shard=Shard(rank, size)
        )
        assert len(loader) == len(list(loader))


def test_the_place_is_read_when_the_first_batch_is():
    calls = []

    def progress() -> Position:
        calls.append("asked")
        return Position(0, 1)

    loader = ExactLoader(Numbers(8), 4, seed=0, progress=progress)
    iterator = iter(loader)  # Lightning makes it before it restores a checkpoint
    assert calls == []
    next(iterator)
    assert calls == ["asked"]


def test_there_is_no_state_to_save_and_lightning_learns_so():
    loader = ExactLoader(Numbers(8), 4, seed=0)
    assert loader.state_dict() == {}
    loader.load_state_dict({})
    assert list(loader.dataset[EpochIndex(3, 1)]) == [3, 1]


def test_what_cannot_be_shared_is_refused():
    def make(**options):
        return ExactLoader(Numbers(10), seed=0, **options)

    with pytest.raises(UsageError, match=r"batch_size=11: there are only 10 training examples"):
        make(batch_size=11, drop_last=True)
    with pytest.raises(UsageError, match=r"batch_size=10: must be a multiple of the 4 devices"):
        make(batch_size=10, drop_last=True, shard=Shard(0, 4))
    assert len(make(batch_size=11)) == 1  # validation takes what there is
    assert len(make(batch_size=10, shard=Shard(0, 4))) == 1


def test_a_fresh_process_brings_the_same_order():
    code = (
        "from mlmodeldev.data.loader import *\n"
        "class N:\n"
        "    def __len__(self): return 23\n"
        "    def __getitem__(self, item): return item.index\n"
        "print([b for b in ExactLoader(N(), 4, 0, True, progress=lambda: Position(1, 2),"
        " collate=list)])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    here = [[index for index, _ in batch] for batch in batches(epoch=1)[2:]]
    assert output == f"{here}\n"
