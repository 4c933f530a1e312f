"""Measures of shared neighbours, against loops over samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlmodeldev.alignment import CKA
from mlmodeldev.errors import UsageError


def layers(seed: int, n: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64) + 3
    y = torch.tanh(x @ torch.randn(6, 90, generator=generator, dtype=torch.float64) / 3)
    return {"x": x, "y": y, "z": torch.randn(n, 40, generator=generator, dtype=torch.float64)}


def neighbours_of(x: np.ndarray, k: int) -> list[set[int]]:
    """Sort all others by Euclidean distance, sample by sample."""
    shared = []
    for i, one in enumerate(x):
        distances = sorted((math.dist(one, other), j) for j, other in enumerate(x) if j != i)
        shared.append({j for _, j in distances[:k]})
    return shared


def mutual(x: np.ndarray, y: np.ndarray, k: int) -> float:
    pairs = zip(neighbours_of(x, k), neighbours_of(y, k), strict=True)
    return float(np.mean([len(a & b) / k for a, b in pairs]))


def aligned(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Sum over shared neighbours of inner products of centred features."""
    x_c, y_c = x - x.mean(0), y - y.mean(0)
    total = 0.0
    for i, (a, b) in enumerate(zip(neighbours_of(x, k), neighbours_of(y, k), strict=True)):
        for j in a & b:
            total += float(x_c[i] @ x_c[j]) * float(y_c[i] @ y_c[j])
    return total


def cknna(x: np.ndarray, y: np.ndarray, k: int) -> float:
    return aligned(x, y, k) / math.sqrt(aligned(x, x, k) * aligned(y, y, k))


@pytest.mark.parametrize("name, oracle", [("mutual_knn", mutual), ("cknna", cknna)])
def test_agrees_with_loops_over_samples_weighted_over_batches(name, oracle) -> None:
    k, sizes = 4, (23, 40)
    metric = CKA(["x", "y", "z"], also=[name], neighbours=k)
    batches = [layers(seed, n) for seed, n in enumerate(sizes)]
    for batch in batches:
        metric.update(batch)
    got = metric.compute_also()[name]
    weights = [n * (n - 3) for n in sizes]
    for i, a in enumerate(batches[0]):
        for j, b in enumerate(batches[0]):
            values = [oracle(batch[a].numpy(), batch[b].numpy(), k) for batch in batches]
            assert got[i, j].item() == pytest.approx(np.average(values, weights=weights), abs=1e-9)


def test_copies_score_one_and_cka_is_what_it_was() -> None:
    batch = layers(0, 30)
    batch["copy"] = 2 * batch["y"] + 1
    plain, more = CKA(["y", "copy"]), CKA(["y", "copy"], also=["cknna", "mutual_knn"])
    for metric in (plain, more):
        metric.update(batch)
    assert torch.equal(plain.compute(), more.compute())
    assert plain.compute_also() == {}
    for matrix in more.compute_also().values():
        assert torch.allclose(matrix, torch.ones(2, 2, dtype=torch.float64), atol=1e-9)


def test_constant_layers_and_short_batches_have_no_value() -> None:
    metric = CKA(["x", "dead"], also=["mutual_knn"], neighbours=5)
    metric.update(layers(0, 5) | {"dead": torch.zeros(5, 3)})
    assert metric.compute_also()["mutual_knn"].isnan().all()
    metric.update(layers(1, 12) | {"dead": torch.zeros(12, 3)})
    got = metric.compute_also()["mutual_knn"]
    assert got[0, 0] == 1 and got[0, 1].isnan() and got[1].isnan().all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"also": ["mutual_nn"]}, "did you mean 'mutual_knn'"),
        ({"also": ["cknna"], "neighbours": 0}, "neighbours=0 must be 1 or more"),
    ],
)
def test_bad_settings_are_named(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        CKA(["x"], **options)
