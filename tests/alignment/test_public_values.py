"""Numbers that others publish for an input that anyone can make."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlmodeldev.alignment import CKA


@pytest.fixture(scope="module")
def uniform() -> dict[str, torch.Tensor]:
    """Two uniform arrays of 30 x 25, in this order from numpy's legacy generator, seed 0."""
    generator = np.random.RandomState(0)
    return {name: torch.tensor(generator.rand(30, 25)) for name in ("x", "y")}


@pytest.mark.parametrize(
    "options, public",
    [
        ({"estimator": "biased"}, 0.489342739104415),
        ({"estimator": "unbiased"}, 0.023598698580557),
        ({"estimator": "biased", "kernel": "rbf", "rbf_sigma": 1.0}, 0.894026798628891),
        ({"estimator": "unbiased", "kernel": "rbf", "rbf_sigma": 1.0}, 0.067639415840883),
    ],
)
def test_the_table_of_the_similarity_repository(uniform, options, public) -> None:
    metric = CKA(["x", "y"], **options)
    metric.update(uniform)
    assert metric.compute()[0, 1].item() == pytest.approx(public, abs=1e-12)


def test_float32_meets_the_table_to_its_own_digits(uniform) -> None:
    metric = CKA(["x", "y"], kernel="rbf", rbf_sigma=1.0)
    metric.update({name: x.float() for name, x in uniform.items()})
    assert metric.compute()[0, 1].item() == pytest.approx(0.067639415840883, abs=1e-7)
