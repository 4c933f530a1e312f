"""Products of rows with themselves, XXᵀ, up to a mean of the rows: the arithmetic of a Gram matrix.

    total = sum_over_columns(rows, torch.float32)     # of rows (64, 8192): (64, 64), float64

Columns are read once, in chunks that stay in the processor's cache. Products of some thousand
columns add up in the type given, those sums in float64. A symmetric product is made in bands of
rows, each up to the diagonal: little more than half the work of a full one.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_BYTES = {"cpu": 2 * 2**20}
_CHUNK_BYTES_DEVICE = 64 * 2**20
_PADDING = 16
"""Numbers between two rows of the buffer: one cache line of float32."""
_SHIFT_SAMPLES = 16
"""So many samples' mean is taken off before the product."""
_COLUMNS_AT_ONCE = 8192
"""Products of so many columns add up in their own type."""
_NARROW = 1024
"""Columns up to which a call costs as much as the work that smaller bands save."""

Part = tuple[Tensor, Tensor, Tensor]
"""Some rows of a symmetric product, up to and over its diagonal, and the two factors."""


def sum_over_columns(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (X-m)(X-m)ᵀ (n, n), float64, of rows (n, d).

    m is the mean of some samples, evenly spaced: near enough to take a large mean off, and what
    is left of it goes by centring the result, in float64.
    """
    n, d = rows.shape
    device = rows.device
    size = _CHUNK_BYTES.get(device.type, _CHUNK_BYTES_DEVICE)
    width = min(d, max(256, size // (n * dtype.itemsize)))
    bands = _bands(n, width, device.type)
    total: Tensor | None = None
    product = torch.empty(n, n, dtype=dtype, device=device)
    # Rows a power of two apart would fall on the same lines of the cache, and push each other out.
    buffer = torch.empty(n, width + _PADDING, dtype=dtype, device=device)
    step = max(1, n // _SHIFT_SAMPLES)
    some = len(range(0, n, step))
    weights = torch.full((1, some), 1 / some, dtype=dtype, device=device)
    parts: list[Part] = []
    shifted, columns = buffer, 0
    for piece in rows.split(width, dim=1):
        chunk = piece if piece.dtype == dtype else piece.to(dtype)
        if chunk.shape != shifted.shape:
            shifted = buffer[:, : chunk.shape[1]]
            parts = _parts(product, shifted, bands)
        torch.sub(chunk, torch.mm(weights, chunk[::step]), out=shifted)
        _multiply(parts, add=columns > 0)
        columns += width
        if columns >= _COLUMNS_AT_ONCE:
            total, columns = _sum(total, product), 0
    if columns or total is None:
        total = _sum(total, product)
    for top, end in bands[1:]:
        total[:top, top:end] = total[top:end, :top].T
    return total


def feature_moments(rows: Tensor) -> Tensor:
    """Return [d, Σₐ‖xₐ‖⁴, ΣₐΣᵢ xᵢₐ⁴], (3,), float64, of the centred columns xₐ of rows (n, d)."""
    n, d = rows.shape
    size = _CHUNK_BYTES.get(rows.device.type, _CHUNK_BYTES_DEVICE)
    moments = torch.zeros(3, dtype=torch.float64, device=rows.device)
    moments[0] = d
    for chunk in rows.split(max(64, size // (8 * n)), dim=1):
        wide = chunk.to(torch.float64)
        squares = (wide - wide.mean(0)).square_()
        moments[1] += squares.sum(0).square_().sum()
        moments[2] += squares.square_().sum()
    return moments


def _sum(total: Tensor | None, product: Tensor) -> Tensor:
    return product.to(torch.float64, copy=True) if total is None else total.add_(product)


def _bands(n: int, width: int, device: str) -> list[tuple[int, int]]:
    """Return the rows of each part of a product; one part where the whole is better.

    Smaller bands save more of the half above the diagonal, and are multiplied less well
    (measured for 32 to 512 rows, one thread of a processor).
    """
    if device != "cpu":
        return [(0, n)]
    band = 32 if n < 192 and width > _NARROW else 64 if n < 512 else 128
    if n < 3 * band // 2:
        return [(0, n)]
    starts = list(range(0, n, band))
    return list(zip(starts, [*starts[1:], n], strict=True))


def _parts(product: Tensor, rows: Tensor, bands: list[tuple[int, int]]) -> list[Part]:
    return [(product[top:end, :end], rows[top:end], rows[:end].T) for top, end in bands]


def _multiply(parts: list[Part], *, add: bool) -> None:
    """Put the products of the parts in their places, or add them to what is there."""
    for out, left, right in parts:
        out.addmm_(left, right, beta=int(add))
