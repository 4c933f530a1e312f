"""How far two layers agree on which samples are near each other, from the Grams CKA is made of.

    measure("mutual_knn", grams_a, grams_b, k=10)     # (len(a), len(b)), float64, one batch

A sample's k neighbours are those at the least distance, kᵢᵢ + kⱼⱼ - 2kᵢⱼ, itself left out; of equal
distances, whichever comes. Both measures are those of Huh et al. 2024 (The Platonic Representation
Hypothesis), who take neighbours by inner product of features of unit length, which is the same
order on such features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlmodeldev.alignment.hsic import Gram, full_precision
from mlmodeldev.errors import UsageError, nearest

MEASURES = ("mutual_knn", "cknna")


def check_measures(measures: Sequence[str], k: int) -> tuple[str, ...]:
    """Return the measures, or raise `UsageError` for an unknown one and for k under 1."""
    for name in measures:
        if name not in MEASURES:
            hint = nearest(str(name), MEASURES)
            raise UsageError(f"also={name!r} is not one of {', '.join(MEASURES)}{hint}")
    if k < 1:
        raise UsageError(f"neighbours={k!r} must be 1 or more")
    return tuple(dict.fromkeys(measures))


def measure(name: str, grams_a: Sequence[Gram], grams_b: Sequence[Gram], k: int) -> Tensor:
    """Return one of `MEASURES` of every pair of layers over a batch of more than k samples.

    ``mutual_knn``: the mean share of a sample's k neighbours that are its neighbours in both.
    ``cknna``: a(K, L)/√(a(K, K)·a(L, L)), a(K, L) = Σ kᵢⱼlᵢⱼ of the centred Grams over those
    pairs where j is a neighbour of i in both. It may be below 0, and is NaN where a(K, K) is 0.
    """
    with full_precision(grams_a[0].diagonal.device):
        (kernels_a, near_a), (kernels_b, near_b) = (
            _with_neighbours(g, k) for g in (grams_a, grams_b)
        )
        if name == "mutual_knn":
            return near_a @ near_b.T / (grams_a[0].samples * k)
        own_a, own_b = (
            (kernels.square() * near).sum(1)
            for kernels, near in ((kernels_a, near_a), (kernels_b, near_b))
        )
        both: Tensor = (kernels_a * near_a) @ (kernels_b * near_b).T
        return both / (own_a[:, None] * own_b).sqrt()


def _with_neighbours(grams: Sequence[Gram], k: int) -> tuple[Tensor, Tensor]:
    """Return kernels, and 1 where j is a neighbour of i; both (len(grams), n²), float64."""
    kernels = torch.stack([g.kernel_matrix() for g in grams])
    diagonal = torch.stack([g.diagonal for g in grams])
    # of row i, kᵢᵢ is the same for all j
    distance = diagonal[:, None, :] - 2 * kernels
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    closest = distance.topk(k, dim=2, largest=False).indices
    near = torch.zeros_like(kernels).scatter_(2, closest, 1.0)
    return kernels.flatten(1), near.flatten(1)
