"""Products of rows with themselves, XXᵀ, up to a mean of the rows: the arithmetic of a Gram matrix.

    total = sum_over_columns(rows, torch.float32)     # of rows (64, 8192): (64, 64), float64

Columns are read once, in chunks that stay in the processor's cache; each chunk's product is in the
type given, their sum in float64. A symmetric product takes half the work of a full one, and a
little more than half the time where BLAS has enough rows to share out.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

_CHUNK_BYTES = {"cpu": 2 * 2**20}
_CHUNK_BYTES_DEVICE = 64 * 2**20
_PADDING = 16
"""Numbers between two rows of the buffer: one cache line of float32."""
_SHIFT_SAMPLES = 16
"""So many samples' mean is taken off before the product."""
_BLAS_FROM = 128
"""Rows from which on BLAS's symmetric product beats one in bands."""
_HALVES_FROM = 32
"""Rows from which on products of half the result beat one of the whole."""


def sum_over_columns(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (X-m)(X-m)ᵀ (n, n), float64, of rows (n, d).

    m is the mean of some samples, evenly spaced: near enough to take a large mean off, and what
    is left of it goes by centring the result, in float64.
    """
    n, d = rows.shape
    size = _CHUNK_BYTES.get(rows.device.type, _CHUNK_BYTES_DEVICE)
    width = min(d, max(256, size // (n * dtype.itemsize)))
    total = torch.empty(n, n, dtype=torch.float64, device=rows.device)
    bands = _bands(n, rows.device.type)
    product = total if bands else torch.empty(n, n, dtype=dtype, device=rows.device)
    # Rows a power of two apart would fall on the same lines of the cache, and push each other out.
    buffer = torch.empty(n, width + _PADDING, dtype=dtype, device=rows.device)
    step = max(1, n // _SHIFT_SAMPLES)
    some = len(range(0, n, step))
    weights = torch.full((1, some), 1 / some, dtype=dtype, device=rows.device)
    for start in range(0, d, width):
        chunk = rows if width == d else rows[:, start : start + width]
        chunk = chunk if chunk.dtype == dtype else chunk.to(dtype)
        mean = torch.mm(weights, chunk[::step])
        shifted = torch.sub(chunk, mean, out=buffer[:, : chunk.shape[1]])
        if not bands:
            _add(_with_itself(shifted, product), total, start)
            continue
        for top, end in bands:  # below the diagonal; the rest is its mirror image
            _add(_band(shifted, top, end), total[top:end, :end], start)
    for top, end in bands:
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


def _add(product: Tensor, total: Tensor, start: int) -> None:
    if start:
        total.add_(product)
    else:
        total.copy_(product)


def _bands(n: int, device: str) -> list[tuple[int, int]]:
    """Return the rows of each product of half the result; none: one product is better."""
    if device != "cpu" or n < _HALVES_FROM or (n >= _BLAS_FROM and _one_thread()):
        return []
    band = max(32, min(n // 4, 128))  # saves near half the work, and runs at full speed
    return [(top, min(top + band, n)) for top in range(0, n, band)]


def _band(rows: Tensor, top: int, end: int) -> Tensor:
    """Return some rows of rows·rowsᵀ, up to and over its diagonal."""
    return torch.mm(rows[top:end], rows[:end].T)


def _with_itself(rows: Tensor, out: Tensor) -> Tensor:
    """Return rows·rowsᵀ in `out`, by BLAS's symmetric product where that is faster."""
    if rows.device.type != "cpu" or len(rows) < _BLAS_FROM:
        return torch.mm(rows, rows.T, out=out)
    array = rows.numpy()
    with np.errstate(all="ignore"):  # NaN and Inf are the caller's to report
        np.matmul(array, array.T, out=out.numpy())  # the same memory twice: BLAS's syrk
    return out


def _one_thread() -> bool:
    """Whether numpy's BLAS has one thread, as torch: more of them would be in torch's way."""
    return torch.get_num_threads() == 1 and "1" in (
        os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS", "")
    ).split(",")
