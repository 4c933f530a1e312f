"""The maths of CKA over one batch: features to centred Gram matrices, pairs of them to HSIC.

    grams = [gram(conv), gram(head)]              # of features (64, …), each (64, 64), float64
    pairwise_hsic(grams, grams)                   # (2, 2), float64

`gram` is the costly part: n²d multiplications a layer. Features are read once, in column chunks
that stay in the processor's cache, and neither kept nor copied as a whole, so that a forward hook
can call it on a live output. HSIC is computed from centred matrices alone (docs/alignment.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mlmodeldev.alignment import products
from mlmodeldev.alignment.double_precision import on_wide_device
from mlmodeldev.errors import UsageError

KERNELS = ("linear", "rbf")
ESTIMATORS = ("unbiased", "biased")
MIN_SAMPLES = 4
"""HSIC1 divides by n(n-3): batches under four samples have none."""
_PIECE_NUMBERS = 4096
"""Numbers of a layer's matrix that are multiplied at a time on a processor."""


@dataclass(frozen=True)
class Gram:
    """One layer's part of one batch of n samples, centred, in float64.

    Exactly one of `matrix` (n, n) and `features` (n, d), d < n, is there; K = features·featuresᵀ.
    `diagonal` (n,) is K's; `rounding` is a scalar on the same device: a trace up to it is nothing
    but rounding, so that all samples are the same. Centring spreads a NaN or Inf of any value over
    all, hence the trace tells whether every value is finite. `eps` is the resolution of the numbers
    that the matrix was computed in. `moments` (3,) is `products.feature_moments`, if asked for.
    """

    diagonal: Tensor
    rounding: Tensor
    eps: float
    matrix: Tensor | None = None
    features: Tensor | None = None
    moments: Tensor | None = None

    @property
    def samples(self) -> int:
        """Number of samples n."""
        return self.diagonal.shape[0]

    def kernel_matrix(self) -> Tensor:
        """Return the centred kernel matrix (n, n)."""
        if self.matrix is not None:
            return self.matrix
        assert self.features is not None
        return self.features @ self.features.T


def gram(
    features: Tensor,
    kernel: str = "linear",
    rbf_threshold: float = 1.0,
    rbf_sigma: float | None = None,
    *,
    moments: bool = False,
) -> Gram:
    """Reduce features (n, …) to a `Gram`; nothing of the features is kept or changed.

    Half precision is raised to float32, integers to float64; a mean of the batch is taken off
    before any product, so that a large one costs no digits, and sums are in float64. `rbf` uses
    exp(-d²/(2σ²)) with σ² = `rbf_threshold`² x the median of all n² squared distances (the
    authors' demo of Kornblith et al. 2019), or with σ = `rbf_sigma` where that is given. `moments`:
    take those of single features too, for `feature_sampling`.

    Raises `UsageError` for features without a batch dimension and for complex ones.
    """
    if features.ndim < 1 or features.is_complex():
        raise UsageError(
            f"features must be real and of shape (batch, …), not {features.dtype} "
            f"{tuple(features.shape)}"
        )
    if not len(features):
        empty = on_wide_device(features).new_zeros(0, dtype=torch.float64)
        nothing = empty.new_zeros(3) if moments else None
        return Gram(empty, empty.sum(), 0.0, matrix=empty.new_zeros(0, 0), moments=nothing)
    rows = as_rows(on_wide_device(features.detach()))
    with full_precision(rows.device):
        few = rows.shape[1] < rows.shape[0]
        linear = _from_few_features(rows) if few else _from_many_features(rows)
        if moments:
            linear = replace(linear, moments=products.feature_moments(rows))
        return linear if kernel == "linear" else _rbf(linear, rbf_threshold, rbf_sigma)


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


def combine(product: Tensor, diagonals: Tensor, traces: Tensor, n: int, estimator: str) -> Tensor:
    """Return HSIC from ⟨K, L⟩, Σ kᵢᵢlᵢᵢ and tr K tr L of centred matrices of n samples."""
    if estimator == "biased":
        return product / (n - 1) ** 2
    corrected = product - diagonals * (n / (n - 2)) + traces / ((n - 1) * (n - 2))
    return corrected / (n * (n - 3))


def check_sigma(sigma: float | None, kernel: str, threshold: float) -> float | None:
    """Return an rbf bandwidth that is positive and the only one, or raise `UsageError`."""
    if sigma is None:
        return None
    if not 0 < sigma < float("inf"):
        raise UsageError(f"rbf_sigma={sigma!r} must be a number greater than 0")
    if kernel != "rbf":
        raise UsageError(f"rbf_sigma={sigma!r} goes with kernel=rbf, not kernel={kernel}")
    if threshold != 1:
        raise UsageError(f"rbf_sigma={sigma!r} and rbf_threshold={threshold!r}: give one of them")
    return sigma


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply matrices in the precision of their inputs: no autocast, TF32 or bf16 passes."""
    backend: Any = torch.backends.mkldnn  # typed without the `matmul` that it has
    matmul = torch.backends.cuda.matmul if device.type == "cuda" else backend.matmul
    saved = matmul.fp32_precision
    try:
        if saved != "ieee":
            matmul.fp32_precision = "ieee"
        with torch.no_grad(), _no_autocast(device.type):
            yield
    finally:
        if saved != "ieee":
            matmul.fp32_precision = saved


def as_rows(features: Tensor) -> Tensor:
    """View (n, …) as (n, d) without a copy where the memory is dense; column order is free."""
    if features.ndim == 1:
        return features.unsqueeze(1)
    if features.is_contiguous():
        return features.flatten(1)
    if features.ndim > 2:
        order = sorted(range(1, features.ndim), key=features.stride, reverse=True)
        features = features.permute(0, *order)
    return features.reshape(features.shape[0], -1)


def are_same(grams_a: Sequence[Gram], grams_b: Sequence[Gram]) -> bool:
    """Whether both are the same layers in the same order."""
    return len(grams_a) == len(grams_b) and all(
        a is b for a, b in zip(grams_a, grams_b, strict=True)
    )


def _no_autocast(device: str) -> AbstractContextManager[Any]:
    """Leave autocast, which takes longer than a small product, only where it is on."""
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def _from_few_features(rows: Tensor) -> Gram:
    wide = rows.to(torch.float64)
    centred = wide - wide.mean(0)
    eps = torch.finfo(torch.float64).eps
    rounding = (8 * eps) ** 2 * wide.square().sum()
    return Gram(centred.square().sum(1), rounding, eps, features=centred)


def _from_many_features(rows: Tensor) -> Gram:
    dtype = rows.dtype if rows.dtype in (torch.float32, torch.float64) else torch.float32
    if not rows.is_floating_point():
        dtype = torch.float64
    matrix = products.sum_over_columns(rows, dtype)
    eps = torch.finfo(dtype).eps
    # Little of the mean is left; if centring then removes all the rest, that was rounding.
    rounding = matrix.trace() * (32 * eps)
    _centre(matrix)
    return Gram(matrix.diagonal().clone(), rounding, eps, matrix=matrix)


def _centre(matrix: Tensor) -> None:
    means = matrix.mean(0)
    matrix.sub_(means).sub_((means - means.mean()).unsqueeze_(1))


def _rbf(linear: Gram, threshold: float, sigma: float | None) -> Gram:
    matrix = linear.kernel_matrix()
    squared = linear.diagonal[:, None] + linear.diagonal[None, :] - 2 * matrix
    squared.fill_diagonal_(0).clamp_(min=0)  # rounding only: a squared distance is never below 0
    if sigma is None:
        variance = threshold**2 * _median(squared)
    else:
        variance = torch.full_like(linear.rounding, sigma**2)
    kernel = torch.exp(-squared / (2 * variance))
    _centre(kernel)
    # A median of 0 (most samples the same) leaves no bandwidth, hence no kernel: all is rounding.
    constant = (linear.diagonal.sum() <= linear.rounding) | (variance <= 0)
    kernel = torch.where(constant, 0.0, kernel)
    return Gram(kernel.diagonal().clone(), torch.zeros_like(variance), linear.eps, matrix=kernel)


def _median(values: Tensor) -> Tensor:
    flat = values.flatten()
    middle = (flat.numel() + 1) // 2
    return (flat.kthvalue(middle).values + flat.kthvalue(flat.numel() // 2 + 1).values) / 2


def _inner_products(grams_a: Sequence[Gram], grams_b: Sequence[Gram]) -> Tensor:
    """Return ⟨K, L⟩ of every pair (len(a), len(b)), of pieces of all layers that fit the cache."""
    if _features_are_cheaper(grams_a, grams_b):
        return _feature_products(grams_a, grams_b)
    left = _pieces(grams_a)
    right = left if are_same(grams_a, grams_b) else _pieces(grams_b)
    product = left[0][0].new_zeros(len(grams_a), len(grams_b))
    for a, b in zip(left, right, strict=True):
        stacked = torch.stack(a)
        product.addmm_(stacked, (stacked if a is b else torch.stack(b)).T)
    return product


def _pieces(grams: Sequence[Gram]) -> list[tuple[Tensor, ...]]:
    """Return the kernel matrices in pieces, the same of all layers together; views."""
    flat = [g.kernel_matrix().flatten() for g in grams]
    size = _PIECE_NUMBERS if flat[0].device.type == "cpu" else flat[0].numel()
    return list(zip(*(matrix.split(size) for matrix in flat), strict=True))


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
        result[i] = torch.stack([part.sum() for part in torch.split(columns, widths)])
    return result


def _squared_norm(layer: Gram) -> Tensor:
    if layer.matrix is not None:
        flat = layer.matrix.flatten()
        return flat.dot(flat)
    assert layer.features is not None
    return (layer.features.T @ layer.features).square().sum()


def _mark(hsic: Tensor, constant: Tensor, finite: Tensor) -> Tensor:
    """Set constant layers to 0 and layers that are not finite to NaN, whatever they computed to."""
    return torch.where(constant, 0.0, hsic).masked_fill_(~finite, torch.nan)


def _flags(grams: Sequence[Gram], traces: Tensor) -> tuple[Tensor, Tensor]:
    """Return which layers are constant and which are finite."""
    return traces <= torch.stack([g.rounding for g in grams]), traces.isfinite()
