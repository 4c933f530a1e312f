"""The DataModules' base: loaders from datasets, workers from the machine, the bundled digits."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from datamodule import Digits
from mlmodeldev.data.datasets import shift, split
from mlmodeldev.data.loader import EpochIndex, Position
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.readers import read_digits
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.training.ranks import World


class Few(ExactDataModule):
    def setup(self, stage: str | None = None) -> None:
        self.train_set, self.val_set = [*range(10)], [*range(7)]


@pytest.fixture
def make(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)

    def call(*overrides: str, rank: int = 0, size: int = 1) -> Few:
        module = Few()
        module.attach(compose_settings(overrides), World(rank=rank, size=size))
        module.setup()
        return module

    return call


def test_workers_are_as_many_as_requested(make):
    assert make("processing.num_workers=3").workers() == 3
    assert make("processing.num_workers=0").workers() == 0


def test_by_default_workers_leave_a_cpu_to_training(make, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert make().workers() == 5
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert make().workers() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert make().workers() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "128")
    assert make().workers() == 5  # the step's CPUs, not the job's
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(128)))
    assert make().workers() == 16


def test_data_in_memory_need_no_workers(make, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    module = make()
    module.in_memory = True
    assert module.workers() == 0


def test_training_shuffles_and_drops_validation_does_neither(make):
    module = make("processing.batch_size=4", "training.seed=3")
    train, val = module.train_dataloader(), module.val_dataloader()
    assert (len(train), len(val)) == (2, 2)
    sampler = train.batch_sampler
    assert (sampler.shuffle, sampler.drop, sampler.seed, sampler.batch) == (True, True, 3, 4)
    assert (val.batch_sampler.shuffle, val.batch_sampler.drop) == (False, False)
    assert [[item.index for item in batch] for batch in val.batch_sampler] == [
        [0, 1, 2, 3],
        [4, 5, 6],
    ]


def test_each_rank_gets_its_part_of_the_global_batch(make):
    loader = make("processing.batch_size=4", rank=1, size=2).val_dataloader()
    assert [[item.index for item in batch] for batch in loader.batch_sampler] == [[1, 3], [5]]


def test_training_begins_where_the_trainers_progress_says(make):
    module = make("processing.batch_size=4")
    progress = SimpleNamespace(current=SimpleNamespace(ready=1))
    epoch_loop = SimpleNamespace(batch_progress=progress)
    module.trainer = SimpleNamespace(
        current_epoch=6, fit_loop=SimpleNamespace(epoch_loop=epoch_loop)
    )
    assert module._position() == Position(6, 1)


def test_the_digits_are_those_of_scikit_learn():
    images, labels = read_digits()
    reference = load_digits()
    assert np.array_equal(images, reference.images)
    assert np.array_equal(labels, reference.target)


@pytest.fixture(scope="module")
def digits(data_dir):
    module = Digits()
    module.attach(compose_settings([f"artefacts.data_dir={data_dir}"]), World())
    module.prepare_data()
    module.setup()
    return module


def test_no_image_is_in_two_parts_and_none_is_lost(digits):
    parts = [
        set(part.index.tolist()) for part in (digits.train_set, digits.val_set, digits.test_set)
    ]
    assert [len(part) for part in parts] == [1258, 359, 180]
    assert set().union(*parts) == set(range(1797))


def test_the_split_follows_its_own_seed():
    first, second = split(100, 0, 0.2, 0.1), split(100, 1, 0.2, 0.1)
    assert [len(part) for part in first] == [70, 20, 10]
    assert sorted(np.concatenate(first)) == list(range(100))
    assert not np.array_equal(first[0], second[0])
    with pytest.raises(UsageError, match="leave nothing to train on"):
        split(10, 0, 0.6, 0.4)


def test_an_example_is_a_function_of_index_and_epoch(digits):
    train = digits.train_set
    first = train[EpochIndex(5, 2)]
    train[EpochIndex(8, 2)]
    assert all(
        torch.as_tensor(v).equal(torch.as_tensor(train[EpochIndex(5, 2)][k]))
        for k, v in first.items()
    )
    images = {tuple(train[EpochIndex(5, epoch)]["image"].flatten().tolist()) for epoch in range(20)}
    assert 1 < len(images) <= 9
    assert len({int(train[EpochIndex(5, e)]["label"]) for e in range(20)}) == 1
    validation = {
        tuple(digits.val_set[EpochIndex(5, e)]["image"].flatten().tolist()) for e in range(9)
    }
    assert len(validation) == 1


def test_captions_say_what_the_label_is(digits):
    for index in range(30):
        example = digits.train_set[EpochIndex(index, 0)]
        text = digits.tokenizer.decode(example["input_ids"], skip_special_tokens=True)
        assert digits.labels[example["label"]] in text.replace(" ##", "")


def test_pixels_are_centred_and_scaled(digits):
    pixels = digits.train_set.images
    assert abs(float(pixels.mean())) < 0.01
    assert abs(float(pixels.std()) - 1) < 0.01


@pytest.mark.parametrize("down", [-1, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_shifting_moves_each_pixel_and_repeats_the_edge(down, right):
    image = torch.arange(12.0).view(1, 3, 4)
    other = image + 100  # of the same batch, left where it is
    moved, still = shift(torch.stack([image, other]), np.array([down, 0]), np.array([right, 0]))
    assert still.equal(other)
    for row in range(3):
        for column in range(4):
            source = min(max(row - down, 0), 2), min(max(column - right, 0), 3)
            assert moved[0, row, column] == image[0, source[0], source[1]]
