"""Exact linear CKA over a whole data set, in one pass, without keeping features.

    metric = FullSetCKA(["pooled", "head"])
    for batch in loader:                       # any order, any batch sizes
        metric.update(features(batch))         # (batch, dim) by layer
    metric.compute()                           # as one batch of everything, `CKA`, would give

Minibatch CKA is an estimate over batches; this is the number itself, as far as memory for
(Σd)² doubles goes: pooled features, not flattened maps. With X centred over the whole set,

    ⟨K, L⟩ = ‖XᵀY‖²,  tr K = Σ kᵢᵢ,  Σ kᵢᵢlᵢᵢ  with  kᵢᵢ = ‖xᵢ - x̄‖²

(Song et al. 2012, eq. 5, in the form of `hsic`). The mean is known at the end only, so moments are
kept about a first guess, the mean of the first batch, and moved to the true mean, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb, isnan
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from mlmodeldev.alignment import hsic
from mlmodeldev.alignment.double_precision import WideMetric, on_wide_device
from mlmodeldev.alignment.feature_sampling import LOST, check_feature_correction, corrected
from mlmodeldev.alignment.hsic import full_precision
from mlmodeldev.alignment.metric import layer_names, one_of
from mlmodeldev.errors import UsageError, nearest

MAX_BYTES = 2 * 2**30


class FullSetCKA(WideMetric):
    """Linear CKA of all pairs of layers over all samples seen, exact whatever the batches.

    Args:
        layers: names of the layers, rows and columns alike.
        estimator: ``"unbiased"`` (HSIC1, default) or ``"biased"`` (HSIC0), over the whole set.
        max_bytes: the most memory the moments may take, default 2 GiB: (Σd)² doubles.
        feature_correction: as `metric.CKA`'s, default no.

    `compute` gives (len(layers), len(layers)), float64; NaN for constant layers, for layers that
    are not finite, and under four samples. Over processes the moments are merged, not averaged;
    each process must have seen a batch.

    Raises `UsageError` for unknown options and where the moments would not fit.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    moments: Any
    shift: Any
    powers: Any

    def __init__(
        self,
        layers: Sequence[str],
        estimator: str = "unbiased",
        max_bytes: int = MAX_BYTES,
        feature_correction: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layers = layer_names(layers, "layers")
        self.estimator = one_of(estimator, hsic.ESTIMATORS, "estimator")
        self.feature_correction = check_feature_correction(feature_correction, estimator, "linear")
        self.max_bytes = max_bytes
        self.widths: list[int] = []
        # Gathered, not summed: every process has its own shift. Empty until the first batch.
        self.add_state("moments", torch.zeros(0, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state("shift", torch.zeros(0, dtype=torch.float64), dist_reduce_fx=None)
        if self.feature_correction:
            empty = torch.zeros(0, 0, dtype=torch.float64)
            self.add_state("powers", empty, dist_reduce_fx=None)

    def update(self, features: Mapping[str, Tensor]) -> None:
        """Add a batch of features (batch, …) by layer name, the same samples in every layer.

        Raises `UsageError` for a missing layer, unequal batch sizes, or a changed width.
        """
        rows = [self._rows(features, name) for name in self.layers]
        sizes, widths = {len(x) for x in rows}, [x.shape[1] for x in rows]
        if len(sizes) > 1 or (self.moments.numel() and widths != self.widths):
            raise UsageError(
                f"features must be (batch, dim) with one batch size and fixed dims, not "
                f"{[tuple(x.shape) for x in rows]}"
            )
        if not len(rows[0]):
            return
        with full_precision(rows[0].device):
            self._add(torch.cat(rows, dim=1), widths)

    def _rows(self, features: Mapping[str, Tensor], name: str) -> Tensor:
        if name not in features:
            raise UsageError(f"no features for layer {name!r}{nearest(name, features)}")
        return on_wide_device(features[name].detach()).flatten(1).to(torch.float64)

    def _add(self, x: Tensor, widths: list[int]) -> None:
        size = x.shape[1] + len(widths) + 1
        if size**2 * 8 > self.max_bytes:
            raise UsageError(
                f"{x.shape[1]} features in all need {size**2 * 8 / 2**30:.1f} GiB of moments, over "
                f"max_bytes={self.max_bytes}: pool them, take fewer layers, or use minibatch CKA"
            )
        self.widths = widths
        if not self.moments.numel():
            self.shift = x.mean(0)
            self.moments = x.new_zeros(size, size)
        moved = x - self.shift
        extended = _extend(moved, widths)
        self.moments += extended.T @ extended
        if self.feature_correction:
            powers = torch.stack([moved.pow(k).sum(0) for k in range(5)])
            self.powers = self.powers + powers if self.powers.numel() else powers

    def compute(self) -> Tensor:
        """Return CKA, (len(layers), len(layers)), float64, over every sample since `reset`."""
        states = [_parts(self.shift, 1), _parts(self.moments, 2)]
        states += [_parts(self.powers, 2)] if self.feature_correction else []
        parts = [part for part in zip(*states, strict=True) if part[1].numel()]
        count = len(self.layers)
        nothing = torch.full((count, count), torch.nan, dtype=torch.float64, device=self.device)
        if not parts:
            rank_zero_warn("CKA: no samples: every entry is NaN", UserWarning)
            return nothing
        with full_precision(parts[0][1].device):
            total = _merge([(part[0], part[1]) for part in parts], self.widths)
            n = int(total[-1, -1].round())
            if n < hsic.MIN_SAMPLES:
                rank_zero_warn(f"CKA: {n} samples, under 4: every entry is NaN", UserWarning)
                return nothing
            single = None
            if self.feature_correction:
                single = self._single_features([(part[0], part[2]) for part in parts])
            return self._divide(_centred(total, self.widths), n, single)

    def _single_features(self, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return what `products.feature_moments` gives of each layer, (layers, 3)."""
        first = parts[0][0]
        powers = torch.stack([_moved(powers, shift - first) for shift, powers in parts]).sum(0)
        powers = _moved(powers, -powers[1] / powers[0])
        lengths, fourths = (
            torch.stack([part.sum() for part in torch.split(one, self.widths)])
            for one in (powers[2].square(), powers[4])
        )
        return torch.stack([lengths.new_tensor(self.widths), lengths, fourths], dim=1)

    def _divide(self, moments: Tensor, n: int, single: Tensor | None) -> Tensor:
        wide, count = sum(self.widths), len(self.widths)
        covariance = moments[:wide, :wide].square()
        blocks = [part.sum(0) for part in torch.split(covariance, self.widths)]
        product = torch.stack(
            [
                torch.stack([piece.sum() for piece in torch.split(block, self.widths)])
                for block in blocks
            ]
        )
        squares = moments[wide : wide + count, wide : wide + count]
        traces = moments[wide : wide + count, -1]
        result = hsic.combine(product, squares, traces[:, None] * traces, n, self.estimator)
        noise = (
            torch.finfo(torch.float64).eps
            * 64
            * hsic.combine(
                product, torch.zeros_like(product), torch.zeros_like(product), n, self.estimator
            )
        )
        own = result.diagonal()
        own = torch.where(own > noise.diagonal(), own, torch.nan)
        reason = "is constant or not finite"
        if single is not None:
            own = corrected(own, single, n)
            own = torch.where(own > noise.diagonal(), own, torch.nan)
            reason += f", or {LOST}"
            result.diagonal().copy_(own)
        for name, value in zip(self.layers, own.tolist(), strict=True):
            if isnan(value):
                rank_zero_warn(f"CKA: layer {name!r} {reason}", UserWarning)
        return result / own.sqrt()[:, None] / own.sqrt()


def _parts(state: Any, dims: int) -> list[Tensor]:
    """Return the state of every process: one tensor alone, a list or a stack after a gather."""
    alone = isinstance(state, Tensor) and (state.ndim == dims or not state.numel())
    return [state] if alone else list(state)


def _extend(x: Tensor, widths: list[int]) -> Tensor:
    """Append to each sample its squared norm in each layer, and a one that counts it."""
    norms = [part.square().sum(1, keepdim=True) for part in torch.split(x, widths, dim=1)]
    return torch.cat([x, *norms, torch.ones_like(norms[0])], dim=1)


def _moved(powers: Tensor, delta: Tensor) -> Tensor:
    """Return Σ(x + delta)ᵏ (5, d), k = 0 to 4, of Σxᵏ (5, d)."""
    rows = []
    for k in range(len(powers)):
        terms = [comb(k, j) * delta ** (k - j) * powers[j] for j in range(k + 1)]
        rows.append(torch.stack(terms).sum(0))
    return torch.stack(rows)


def _translation(delta: Tensor, widths: list[int]) -> Tensor:
    """Return T with extend(x + delta) = extend(x)·T: norms move by 2x·delta + ‖delta‖²."""
    wide, count = len(delta), len(widths)
    matrix = torch.eye(wide + count + 1, dtype=delta.dtype, device=delta.device)
    matrix[-1, :wide] = delta
    start = 0
    for layer, width in enumerate(widths):
        part = delta[start : start + width]
        matrix[start : start + width, wide + layer] = 2 * part
        matrix[-1, wide + layer] = part.square().sum()
        start += width
    return matrix


def _merge(parts: list[tuple[Tensor, Tensor]], widths: list[int]) -> Tensor:
    """Add the moments of all processes about the first one's shift."""
    target, total = parts[0][0], torch.zeros_like(parts[0][1])
    for shift, moments in parts:
        move = _translation(shift - target, widths)
        total += move.T @ moments @ move
    return total


def _centred(moments: Tensor, widths: list[int]) -> Tensor:
    wide = sum(widths)
    move = _translation(-moments[-1, :wide] / moments[-1, -1], widths)
    return move.T @ moments @ move
