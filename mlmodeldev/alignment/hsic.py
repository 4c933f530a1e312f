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
        diagonal_a = torch.stack([g.diagonal for g in grams_a])
        diagonal_b = torch.stack([g.diagonal for g in grams_b])
        hsic = _estimate(product, diagonal_a, diagonal_b, n, estimator)
        return _mark(hsic, grams_a, grams_b)


def self_hsic(grams: Sequence[Gram], estimator: str = "unbiased") -> Tensor:
    """Return HSIC(K, K) of each layer, (len(grams),), float64; 0 where it is lost in rounding."""
    n = grams[0].samples
    with full_precision(grams[0].diagonal.device):
        square = torch.stack([_squared_norm(g) for g in grams])
        trace = torch.stack([g.diagonal.sum() for g in grams])
        diagonal = torch.stack([g.diagonal.square().sum() for g in grams])
        hsic = combine(square, diagonal, trace.square(), n, estimator)
        # U-centring cancels the diagonal: what is left below its rounding error is no dependence.
        noise = torch.tensor([4 * n * g.eps**2 + 2**-46 for g in grams], device=square.device)
        scale = combine(square, torch.zeros_like(square), torch.zeros_like(square), n, estimator)
        hsic = torch.where(hsic.abs() <= noise * scale, 0.0, hsic)
        constant = torch.stack([g.constant for g in grams])
        finite = torch.stack([g.finite for g in grams])
        return torch.where(constant, 0.0, hsic).masked_fill(~finite, torch.nan)


def _inner_products(grams_a: Sequence[Gram], grams_b: Sequence[Gram]) -> Tensor:
    """Return ⟨K, L⟩ of every pair (len(a), len(b)); half of them where both sides are the same."""
    same = len(grams_a) == len(grams_b) and all(
        a is b for a, b in zip(grams_a, grams_b, strict=True)
    )
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
        return layer.matrix.square().sum()
    assert layer.features is not None
    return (layer.features.T @ layer.features).square().sum()


def _estimate(product: Tensor, a: Tensor, b: Tensor, n: int, estimator: str) -> Tensor:
    traces = a.sum(1)[:, None] * b.sum(1)[None, :]
    return combine(product, a @ b.T, traces, n, estimator)


def combine(product: Tensor, diagonals: Tensor, traces: Tensor, n: int, estimator: str) -> Tensor:
    """Return HSIC from ⟨K, L⟩, Σ kᵢᵢlᵢᵢ and tr K tr L of centred matrices of n samples."""
    if estimator == "biased":
        return product / (n - 1) ** 2
    corrected = product - diagonals * (n / (n - 2)) + traces / ((n - 1) * (n - 2))
    return corrected / (n * (n - 3))


def _mark(hsic: Tensor, grams_a: Sequence[Gram], grams_b: Sequence[Gram]) -> Tensor:
    """Set constant layers to 0 and layers that are not finite to NaN, whatever they computed to."""
    constant_a, finite_a = (torch.stack([getattr(g, k) for g in grams_a]) for k in _FLAGS)
    constant_b, finite_b = (torch.stack([getattr(g, k) for g in grams_b]) for k in _FLAGS)
    hsic = torch.where(constant_a[:, None] | constant_b[None, :], 0.0, hsic)
    return hsic.masked_fill(~(finite_a[:, None] & finite_b[None, :]), torch.nan)


_FLAGS = ("constant", "finite")
