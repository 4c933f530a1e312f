"""CKA between all pairs of layers, as a torchmetrics metric.

    metric = CKA(["conv", "head"])
    for batch in loader:                       # in random order: see docs/alignment.md
        metric.update({"conv": conv(batch), "head": head(batch)})
    metric.compute()                           # (2, 2), float64

Per batch, HSIC of every pair; over batches, weighted sums; one division at the end (Nguyen,
Raghu & Kornblith 2021, eq. 2-3): ratios are never averaged. Sums add up over processes, so that
two ranks give the number of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from mlmodeldev.alignment import hsic
from mlmodeldev.alignment.double_precision import WideMetric
from mlmodeldev.alignment.feature_sampling import LOST, check_feature_correction, corrected_self
from mlmodeldev.alignment.hsic import KERNELS, Gram, check_sigma, gram
from mlmodeldev.alignment.neighbours import check_measures, measure
from mlmodeldev.alignment.of_ranks import own_rank, rank_count
from mlmodeldev.alignment.significance import (
    Significance,
    Sums,
    assess,
    check_permutations,
    noise_of,
    orders,
    permuted_hsic,
)
from mlmodeldev.errors import UsageError, nearest

WEIGHTINGS = ("pairs", "samples", "equal")


class CKA(WideMetric):
    """Centred kernel alignment of every layer of `layers_a` with every layer of `layers_b`.

    Args:
        layers_a: names of the rows, as they will be called in `update`.
        layers_b: names of the columns; default: `layers_a`.
        kernel: ``"linear"`` (default) or ``"rbf"`` (median heuristic per batch).
        estimator: ``"unbiased"`` (HSIC1, default) or ``"biased"`` (HSIC0).
        weighting: how batches of n samples count: ``"pairs"`` n(n-3) (default), ``"samples"`` n,
            ``"equal"`` 1.
        rbf_threshold: the rbf bandwidth as a fraction of the median distance, default 1.
        permutations: how often each batch's samples are paired at random, for p-values; default
            0. Their sums take 8 bytes a permutation and pair of layers.
        groups: the interval resamples so many groups of batches at most (batch i is in group i
            modulo `groups`); 0 (default): no interval. They take as much each as a permutation.
        seed: of the permutations and the interval, with `epoch`, an attribute that may be set.
        rbf_sigma: the rbf bandwidth itself, in the unit of the features, instead.
        also: measures of `neighbours` to take of the same batches, see `compute_also`.
        neighbours: how many neighbours they look at, default 10.
        feature_correction: take a layer's features for a sample of more (`feature_sampling`),
            default no; values may then be above 1.

    Entries are NaN where CKA has no value: constant layers, layers with NaN or Inf, and no batch
    of four samples or more; `report` counts them by layer and `compute` warns. Values may be
    below 0 with the unbiased estimator and are left so.

    Raises `UsageError` for unknown options, no or repeated layers.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    cross: Tensor
    self_a: Tensor
    self_b: Tensor
    samples: Tensor
    batches: Tensor
    small_batches: Tensor
    one_sided: Tensor
    constant: Tensor
    not_finite: Tensor
    noise: Tensor
    null: Tensor
    group_cross: Tensor
    group_a: Tensor
    group_b: Tensor
    group_batches: Tensor
    also_sums: Tensor
    also_weights: Tensor

    def __init__(
        self,
        layers_a: Sequence[str],
        layers_b: Sequence[str] | None = None,
        kernel: str = "linear",
        estimator: str = "unbiased",
        weighting: str = "pairs",
        rbf_threshold: float = 1.0,
        permutations: int = 0,
        groups: int = 0,
        seed: int = 0,
        rbf_sigma: float | None = None,
        also: Sequence[str] = (),
        neighbours: int = 10,
        feature_correction: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layers_a = layer_names(layers_a, "layers_a")
        self.layers_b = self.layers_a if layers_b is None else layer_names(layers_b, "layers_b")
        self.kernel = one_of(kernel, KERNELS, "kernel")
        self.estimator = one_of(estimator, hsic.ESTIMATORS, "estimator")
        self.weighting = one_of(weighting, WEIGHTINGS, "weighting")
        if not rbf_threshold > 0:
            raise UsageError(f"rbf_threshold={rbf_threshold!r} must be greater than 0")
        self.rbf_threshold = rbf_threshold
        self.rbf_sigma = check_sigma(rbf_sigma, kernel, rbf_threshold)
        self.feature_correction = check_feature_correction(feature_correction, estimator, kernel)
        self.also = check_measures(also, neighbours)
        self.neighbours = neighbours
        self._also: dict[str, Tensor] = {}  # as of the last `compute`, likewise
        self.total_samples = 0  # as of the last `compute`, over all processes
        self.total_batches = 0
        self.permutations, self.groups = check_permutations(permutations), groups
        self.seed, self.epoch = seed, 0
        self._next = 0
        self._sums: Sums | None = None  # as of the last `compute`, over all processes
        self._add_sums(len(self.layers_a), len(self.layers_b))

    def _add_sums(self, rows: int, columns: int) -> None:
        shapes = {"cross": (rows, columns), "self_a": (rows,), "self_b": (columns,)}
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        errors = {
            "noise": (rows, columns),
            "null": (self.permutations, rows, columns),
            "group_cross": (self.groups, rows, columns),
            "group_a": (self.groups, rows),
            "group_b": (self.groups, columns),
        }
        for name, shape in errors.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        counts: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("samples", "batches", "small_batches", "one_sided"), ()
        )
        counts["group_batches"] = (self.groups,)
        per_layer = {"constant": (rows + columns,), "not_finite": (rows + columns,)}
        for name, size in {**counts, **per_layer}.items():
            self.add_state(name, torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

        if self.also:
            zeros = torch.zeros(len(self.also), rows, columns, dtype=torch.float64)
            self.add_state("also_sums", zeros, dist_reduce_fx="sum")
            self.add_state("also_weights", zeros.clone(), dist_reduce_fx="sum")

    def gram(self, features: Tensor) -> Gram:
        """Reduce one layer's features (batch, …) to what `update` needs of them.

        A forward hook can call this, let go of the features, and pass the result to `update`.
        """
        options = (self.kernel, self.rbf_threshold, self.rbf_sigma)
        return gram(features, *options, moments=self.feature_correction)

    def update(
        self,
        features_a: Mapping[str, Tensor | Gram],
        features_b: Mapping[str, Tensor | Gram] | None = None,
        number: int | None = None,
    ) -> None:
        """Add one batch: features (batch, …) by layer name, the same samples in the same order.

        Without `features_b`, the columns are layers of `features_a` too (the symmetric case, or
        two towers in one mapping). Other names in the mappings are ignored. `number` is the
        batch's among those of all processes, which decides what is drawn for it; by default they
        take turns.

        Raises `UsageError` for a missing layer and for unequal batch sizes.
        """
        grams_a = {name: self._reduced(features_a, name) for name in self.layers_a}
        if features_b is None:
            others = [name for name in self.layers_b if name not in grams_a]
            grams_b = grams_a | {name: self._reduced(features_a, name) for name in others}
        else:
            grams_b = {name: self._reduced(features_b, name) for name in self.layers_b}
        rows = [grams_a[name] for name in self.layers_a]
        columns = [grams_b[name] for name in self.layers_b]
        self._add(rows, columns, number, one_sided=features_b is None)

    def _reduced(self, features: Mapping[str, Tensor | Gram], name: str) -> Gram:
        if name not in features:
            raise UsageError(f"no features for layer {name!r}{nearest(name, features)}")
        given = features[name]
        return given if isinstance(given, Gram) else self.gram(given)

    def _add(
        self,
        rows: Sequence[Gram],
        columns: Sequence[Gram],
        number: int | None = None,
        *,
        one_sided: bool = False,
    ) -> None:
        number = self._next * rank_count() + own_rank() if number is None else number
        self._next += 1
        n = _common_batch(rows, columns, [*self.layers_a, *self.layers_b])
        if n < hsic.MIN_SAMPLES:
            self.small_batches += 1
            return
        weight = {"pairs": n * (n - 3), "samples": n, "equal": 1}[self.weighting]
        own_a = hsic.self_hsic(rows, self.estimator)
        same = hsic.are_same(rows, columns)
        own_b = own_a if same else hsic.self_hsic(columns, self.estimator)
        device = self.cross.device
        cross = hsic.pairwise_hsic(rows, columns, self.estimator)
        base_a, base_b = own_a, own_b  # what is divided by: of chance, the layers as they are
        if self.feature_correction:
            base_a, base_b = corrected_self(rows, own_a), corrected_self(columns, own_b)
            itself = _same_names(self.layers_a, self.layers_b, cross.device)
            cross = torch.where(itself, base_a[:, None], cross) if one_sided else cross
        self.cross += weight * cross.to(device)
        self.self_a += weight * base_a.to(device)
        self.self_b += weight * base_b.to(device)
        self.one_sided += one_sided
        if self.estimator == "unbiased":
            self.noise += noise_of(own_a, own_b, n, weight).to(device)
        if self.permutations:
            drawn = orders([*rows, *columns], self._seed, number, self.permutations)
            null = permuted_hsic(rows, columns, drawn, self.estimator)
            scale = weight * torch.outer(own_a.sqrt(), own_b.sqrt())
            self.null += (null * scale).to(device)
        if self.groups:
            group = number % self.groups
            self.group_cross[group] += weight * cross.to(device)
            self.group_a[group] += weight * base_a.to(device)
            self.group_b[group] += weight * base_b.to(device)
            self.group_batches[group] += 1
        own = torch.cat([own_a, own_b])
        self.constant += (own == 0).to(device)
        self.not_finite += own.isnan().to(device)
        self.samples += n
        self.batches += 1
        if n > self.neighbours:
            self._add_also(rows, columns, weight, torch.outer(own_a, own_b))

    def _add_also(
        self, rows: Sequence[Gram], columns: Sequence[Gram], weight: int, own: Tensor
    ) -> None:
        for place, name in enumerate(self.also):
            value = measure(name, rows, columns, self.neighbours)
            defined = value.isfinite() & (own > 0)
            self.also_sums[place] += (weight * value).where(defined, 0.0).to(self.cross.device)
            self.also_weights[place] += (weight * defined.double()).to(self.cross.device)

    def compute_also(self) -> dict[str, Tensor]:
        """Return each measure of `also` by name, shaped as `compute`'s matrix.

        The mean over batches of more than `neighbours` samples, weighted as they are for CKA; NaN
        where none has a value. A ratio such as cknna is taken in each batch. All processes call
        this.
        """
        self.compute()
        return self._also

    def compute(self) -> Tensor:
        """Return CKA, (len(layers_a), len(layers_b)), float64, of everything seen since `reset`."""
        own_a, own_b = (
            torch.where(own > 0, own, torch.nan).sqrt() for own in (self.self_a, self.self_b)
        )
        self.total_samples, self.total_batches = int(self.samples), int(self.batches)
        self._sums = self._summed()
        if self.also:
            values = self.also_sums / self.also_weights
            self._also = dict(zip(self.also, values, strict=True))
        for line in self.report():
            rank_zero_warn(f"CKA: {line}", UserWarning)
        return self.cross / own_a[:, None] / own_b[None, :]

    def significance(self) -> Significance:
        """Return the noise floor, significance and intervals of what `compute` returns.

        Computes first where that is still to be done: all processes call this.
        """
        return self._assess(range(len(self.layers_a)), range(len(self.layers_b)))

    def reset(self) -> None:
        """Forget all batches, and count them from 0 again."""
        super().reset()
        self._next = 0

    def _assess(self, rows: Sequence[int], columns: Sequence[int]) -> Significance:
        self.compute()
        assert self._sums is not None
        a, b = (
            [names[i] for i in of]
            for names, of in ((self.layers_a, rows), (self.layers_b, columns))
        )
        itself = _same_names(a, b, self.cross.device) & self._sums.one_sided
        return assess(self._sums.of(rows, columns), itself)

    @property
    def _seed(self) -> tuple[int, int]:
        return self.seed % 2**32, self.epoch

    def _summed(self) -> Sums:
        groups = (self.group_cross, self.group_a, self.group_b, self.group_batches)
        return Sums(
            *(self.cross, self.self_a, self.self_b, bool(self.one_sided)),
            noise=self.noise if self.estimator == "unbiased" else None,
            null=self.null if self.permutations else None,
            groups=groups if self.groups else None,
            seed=self._seed,
        )

    def _wrap_compute(self, compute: Any) -> Any:
        wrapped = super()._wrap_compute(compute)

        def with_its_shape(*args: Any, **kwargs: Any) -> Tensor:
            """torchmetrics makes a number of a matrix of one layer by one."""
            matrix: Tensor = wrapped(*args, **kwargs)
            return matrix.reshape(len(self.layers_a), len(self.layers_b))

        return with_its_shape

    def report(self) -> list[str]:
        """Return one line for each layer or batch that has no CKA, with its count."""
        batches, small = int(self.batches), int(self.small_batches)
        lines = []
        if small:
            lines.append(f"{small} of {batches + small} batches have under 4 samples: left out")
        if not batches:
            lines.append("no batch with 4 samples or more: every entry is NaN")
        reasons = {
            "not finite (NaN or Inf in the features or their products)": self.not_finite,
            "constant, or without dependence beyond rounding": self.constant,
        }
        names = [*self.layers_a, *self.layers_b]
        for reason, counts in reasons.items():
            lines += [
                f"layer {name!r} is {reason} in {count} of {batches} batches"
                for name, count in dict(zip(names, counts.tolist(), strict=True)).items()
                if count
            ]
        if self.feature_correction:
            lost = dict.fromkeys(
                name for name, gone in zip(names, self._lost(), strict=True) if gone
            )
            lines += [f"layer {name!r} {LOST}" for name in lost]
        return lines

    def _lost(self) -> list[bool]:
        """Return of which layers the correction leaves nothing, though they vary."""
        varies = self.constant + self.not_finite < self.batches
        lost: list[bool] = (varies & (torch.cat([self.self_a, self.self_b]) <= 0)).tolist()
        return lost


def one_of(value: str, allowed: Sequence[str], what: str) -> str:
    """Return `value` if it is one of `allowed`, else raise `UsageError` with the nearest."""
    if value not in allowed:
        hint = nearest(str(value), allowed)
        raise UsageError(f"{what}={value!r} is not one of {', '.join(allowed)}{hint}")
    return value


def layer_names(layers: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the names, or raise `UsageError` if there is none or one comes twice."""
    if isinstance(layers, str) or not layers:
        raise UsageError(f"{what}={layers!r} must be a list of at least one layer name")
    twice = sorted({name for name in layers if list(layers).count(name) > 1})
    if twice:
        raise UsageError(f"{what} names {twice[0]!r} more than once")
    return tuple(layers)


def _same_names(a: Sequence[str], b: Sequence[str], device: torch.device) -> Tensor:
    """Return where (len(a), len(b)) a layer meets itself, if both sides are of one model."""
    same = [row == column for row in a for column in b]
    return torch.tensor(same, dtype=torch.bool, device=device).view(len(a), len(b))


def _common_batch(rows: Sequence[Gram], columns: Sequence[Gram], names: Sequence[str]) -> int:
    sizes = [g.samples for g in (*rows, *columns)]
    for name, size in zip(names, sizes, strict=True):
        if size != sizes[0]:
            raise UsageError(
                f"layer {name!r} has {size} samples where {names[0]!r} has {sizes[0]}: "
                "the first dimension must be the batch"
            )
    return sizes[0]
