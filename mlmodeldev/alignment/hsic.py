"""HSIC, the maths of CKA: from the features of one batch to the HSIC of every pair of layers.

A layer enters as features ``(batch, …)`` and is reduced at once to a `Gram`: its centred kernel
matrix, or its centred features where those are smaller. All pairs then come from one product::

    a = [gram(x) for x in (layer1, layer2)]       # each (n, …) -> Gram
    hsic = pairwise_hsic(a, a, "unbiased")        # (2, 2), float64

With K and L centred (HKH), both estimators need three sums only; nothing is formed per pair:

    HSIC0 = ⟨K, L⟩ / (n-1)²                                         Kornblith et al. 2019, eq. 2-3
    HSIC1 = [⟨K, L⟩ - n/(n-2) Σ kᵢᵢlᵢᵢ + tr K tr L / ((n-1)(n-2))] / (n(n-3))

The second is Song et al. 2012, eq. 5 (Nguyen et al. 2021, eq. 3): it is unchanged by centring, and
a centred matrix without its diagonal has row sums -kᵢᵢ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlmodeldev.alignment.gram import Gram, full_precision

ESTIMATORS = ("unbiased", "biased")
MIN_SAMPLES = 4
"""HSIC1 divides by n(n-3): batches under four samples have none."""


def pairwise_hsic(
    grams_a: Sequence[Gram], grams_b: Sequence[Gram], estimator: str = "unbiased"
) -> Tensor:
    """Return HSIC (len(a), len(b)), float64, of every pair of layers over one batch of n samples.

    `estimator`: ``"unbiased"`` (HSIC1, n ≥ 4) or ``"biased"`` (HSIC0, n ≥ 2). A layer that is
    not finite gives NaN in its row or column; a constant one gives exactly 0.
    """
    n = grams_a[0].samples
    with full_precision(grams_a[0].diagonal.device):
        product = _inner_products(grams_a, grams_b)
        a = torch.stack([g.diagonal for g in grams_a])
        b = torch.stack([g.diagonal for g in grams_b])
        traces_a, traces_b = a.sum(1), b.sum(1)
        hsic = combine(product, a @ b.T, traces_a[:, None] * traces_b, n, estimator)
        constant_a, finite_a = _flags(grams_a, traces_a)
        constant_b, finite_b = _flags(grams_b, traces_b)
        return _mark(hsic, constant_a[:, None] | constant_b, finite_a[:, None] & finite_b)


def self_hsic(grams: Sequence[Gram], estimator: str = "unbiased") -> Tensor:
    """Return HSIC(K, K) of each layer, (len(grams),), float64; 0 where it is lost in rounding."""
    n = grams[0].samples
    with full_precision(grams[0].diagonal.device):
        square = torch.stack([_squared_norm(g) for g in grams])
        diagonals = torch.stack([g.diagonal for g in grams])
        trace = diagonals.sum(1)
        hsic = combine(square, diagonals.square().sum(1), trace.square(), n, estimator)
        # U-centring cancels the diagonal: what is left below its rounding error is no dependence.
        noise = torch.tensor([4 * n * g.eps**2 + 2**-46 for g in grams], device=square.device)
        scale = combine(square, torch.zeros_like(square), torch.zeros_like(square), n, estimator)
        hsic = torch.where(hsic.abs() <= noise * scale, 0.0, hsic)
        return _mark(hsic, *_flags(grams, trace))


def _inner_products(grams_a: Sequence[Gram], grams_b: Sequence[Gram]) -> Tensor:
    """Return ⟨K, L⟩ of every pair (len(a), len(b)); half of them where both sides are the same."""
    same = are_same(grams_a, grams_b)
    if _features_are_cheaper(grams_a, grams_b):
        return _feature_products(grams_a, grams_b)
    left = torch.stack([g.kernel_matrix().flatten() for g in grams_a])
    if not same:
        right = torch.stack([g.kernel_matrix().flatten() for g in grams_b])
        return left @ right.T
    product = torch.zeros(len(left), len(left), dtype=left.dtype, device=left.device)
    if len(left) < 2:
        return left @ left.T
    half = len(left) // 2
    product[:half, :half] = left[:half] @ left[:half].T
    product[half:, half:] = left[half:] @ left[half:].T
    product[half:, :half] = left[half:] @ left[:half].T
    product[:half, half:] = product[half:, :half].T
    return product


def are_same(grams_a: Sequence[Gram], grams_b: Sequence[Gram]) -> bool:
    """Whether both are the same layers in the same order."""
    return len(grams_a) == len(grams_b) and all(
        a is b for a, b in zip(grams_a, grams_b, strict=True)
    )


def _features_are_cheaper(grams_a: Sequence[Gram], grams_b: Sequence[Gram]) -> bool:
    """Whether the feature form, ‖XᵀY‖² for all pairs at once, takes less work than kernels."""
    if any(g.features is None for g in (*grams_a, *grams_b)):
        return False
    n = grams_a[0].samples
    wide_a = sum(g.features.shape[1] for g in grams_a if g.features is not None)
    wide_b = sum(g.features.shape[1] for g in grams_b if g.features is not None)
    return wide_a * wide_b < n * (wide_a + wide_b + len(grams_a) * len(grams_b))


def _feature_products(grams_a: Sequence[Gram], grams_b: Sequence[Gram]) -> Tensor:
    """Return ‖XᵀY‖² (len(a), len(b)); one row of layers at a time bounds the memory."""
    right = torch.cat([g.features for g in grams_b if g.features is not None], dim=1)
    widths = [g.features.shape[1] for g in grams_b if g.features is not None]
    result = torch.zeros(len(grams_a), len(grams_b), dtype=right.dtype, device=right.device)
    for i, left in enumerate(grams_a):
        assert left.features is not None
        columns = (left.features.T @ right).square().sum(0)
        result[i] = torch.stack([part.sum() for part in columns.split(widths)])
    return result


def _squared_norm(layer: Gram) -> Tensor:
    if layer.matrix is not None:
        flat = layer.matrix.flatten()
        return flat.dot(flat)
    assert layer.features is not None
    return (layer.features.T @ layer.features).square().sum()


def combine(product: Tensor, diagonals: Tensor, traces: Tensor, n: int, estimator: str) -> Tensor:
    """Return HSIC from ⟨K, L⟩, Σ kᵢᵢlᵢᵢ and tr K tr L of centred matrices of n samples."""
    if estimator == "biased":
        return product / (n - 1) ** 2
    corrected = product - diagonals * (n / (n - 2)) + traces / ((n - 1) * (n - 2))
    return corrected / (n * (n - 3))


def _mark(hsic: Tensor, constant: Tensor, finite: Tensor) -> Tensor:
    """Set constant layers to 0 and layers that are not finite to NaN, whatever they computed to."""
    return torch.where(constant, 0.0, hsic).masked_fill_(~finite, torch.nan)


def _flags(grams: Sequence[Gram], traces: Tensor) -> tuple[Tensor, Tensor]:
    """Return which layers are constant and which are finite."""
    return traces <= torch.stack([g.rounding for g in grams]), traces.isfinite()
