"""Randomness as a function of seed and purpose: stable, independent, evenly spread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlmodeldev.data.loader import generator, key, permutation

ROOT = Path(__file__).resolve().parents[2]


def test_keys_never_change():
    # A trial that was begun before an update must go on after it with the same draws.
    assert key(0) == 1969430041167912803
    assert key(0, "order", 1) == 5854654283994555517
    assert key(3, "augment", 2, 17) == 2964189119293416663
    assert permutation(6, 0, 0).tolist() == [0, 1, 3, 5, 4, 2]


def test_other_paths_are_other_keys():
    paths = [(), (0,), (1,), (0, 0), ("0",), ("a",), ("b",), ("ab",), ("a", "b"), ("b", "a")]
    paths += [("a", 1), ("a1",), (1, "a"), (-1,), (256,), (1, 0), ("",), ("", "")]
    keys = [key(seed, *path) for path in paths for seed in (0, 1)]
    assert len(set(keys)) == len(keys)


def test_keys_fit_into_63_bits_and_use_them():
    keys = [key(0, "x", number) for number in range(2000)]
    assert min(keys) >= 0
    assert max(keys) < 2**63
    ones = sum(f"{each:063b}".count("1") for each in keys) / (63 * len(keys))
    assert ones == pytest.approx(0.5, abs=0.01)


def test_a_generator_is_the_same_each_time_and_unmoved_by_others():
    first = generator(0, "augment", 3).integers(0, 1000, 20)
    np.random.default_rng(0).random(100)
    assert (generator(0, "augment", 3).integers(0, 1000, 20) == first).all()
    assert (generator(0, "augment", 4).integers(0, 1000, 20) != first).any()
    assert (generator(1, "augment", 3).integers(0, 1000, 20) != first).any()


@pytest.mark.parametrize("size", [0, 1, 2, 97])
def test_an_epochs_order_holds_each_example_once(size):
    for epoch in range(3):
        assert sorted(permutation(size, 0, epoch)) == list(range(size))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(permutation(50, seed, epoch)) for seed in range(3) for epoch in range(4)]
    assert len(set(orders)) == len(orders)


def test_each_example_comes_to_each_place_about_equally_often():
    counts = np.zeros((6, 6))
    for epoch in range(3000):
        counts[np.arange(6), permutation(6, 0, epoch)] += 1
    # 500 expected in each cell, standard deviation 20: five of them
    assert abs(counts - 500).max() < 100


def test_a_fresh_process_draws_the_same():
    """Whatever PYTHONHASHSEED is."""
    code = "from mlmodeldev.data.loader import *; print(key(5, 'a'), *permutation(20, 5, 1))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = " ".join(map(str, [key(5, "a"), *permutation(20, 5, 1)]))
    assert outputs == {here + "\n"}
