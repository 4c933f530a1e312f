"""Whether a CKA value is above chance, and how far the choice of batches moves it.

    metric = CKA(["conv", "head"], permutations=1000, groups=64)
    ...                                           # update with batches, as ever
    result = metric.significance()
    result.significant                            # (2, 2), bool
    result.lower, result.upper                    # 95 % interval over batches

Three answers, each from the Gram matrices that are there (docs/alignment.md derives them): the
noise floor, the standard deviation that the unbiased estimate has where samples are paired at
random; permutations, the whole distribution under random pairing, for p-values; and a bootstrap
over batches. Random numbers come from generators of their own, seeded by the number of the batch,
so that any number of processes draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from mlmodeldev.alignment import hsic
from mlmodeldev.alignment.hsic import Gram
from mlmodeldev.errors import UsageError

LEVEL = 0.05
"""Share of cells that are called significant where samples are paired at random."""
LEAST_PERMUTATIONS = 19
"""With fewer, no p-value can be as low as the level: the lowest is 1/(1 + permutations)."""
LEAST_GROUPS = 6
"""The least and the largest of five independent values hold their median between them in 15 of 16
cases: fewer than six batches have no 95 % interval that does not assume a distribution."""
RESAMPLES = 500
_TIE = 1e-6
"""Null values are sums of float32: nearer than this to a value, in units of CKA, is equal to it."""
_CHUNK_NUMBERS = 2**21


@dataclass(frozen=True)
class Significance:
    """What the errors of a CKA matrix are; matrices are (rows, columns), on the metric's device.

    Attributes:
        itself: cells of a layer with itself, 1 by construction: nothing is tested there.
        floor: standard deviation under random pairing, unbiased estimator only.
        threshold: value up to which a cell is not significant: the 95 % quantile of its
            permutations, without them 2 x `floor`; None with neither.
        significant: which cells are above it; False for undefined cells and `itself`.
        p_values: (1 + number of permutations with at least this value)/(1 + `permutations`).
        familywise_threshold: 95 % quantile over permutations of the largest cell, a scalar.
        familywise_p: as `p_values`, against the largest cell of each permutation.
        lower, upper: 95 % bootstrap interval over batches; None with fewer than six.
        permutations: how many there were.
    """

    itself: Tensor
    floor: Tensor | None = None
    threshold: Tensor | None = None
    significant: Tensor | None = None
    p_values: Tensor | None = None
    familywise_threshold: Tensor | None = None
    familywise_p: Tensor | None = None
    lower: Tensor | None = None
    upper: Tensor | None = None
    permutations: int = 0

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what there is, by name; `permutations` too where there are any."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        there = {name: v.cpu().numpy() for name, v in values.items() if isinstance(v, Tensor)}
        return there | ({"permutations": np.array(self.permutations)} if self.permutations else {})


@dataclass(frozen=True)
class Sums:
    """What `CKA` has summed over batches, as far as it was to.

    Attributes:
        cross, own_a, own_b: HSIC (rows, columns), (rows,), (columns,), weighted.
        one_sided: rows and columns are layers of one model.
        noise: variance of `cross` under random pairing, (rows, columns).
        null: `cross` of each permutation, (permutations, rows, columns).
        groups: `cross`, `own_a`, `own_b` of each group of batches, and its number of batches.
        seed: of the bootstrap.
    """

    cross: Tensor
    own_a: Tensor
    own_b: Tensor
    one_sided: bool
    noise: Tensor | None
    null: Tensor | None
    groups: tuple[Tensor, Tensor, Tensor, Tensor] | None
    seed: tuple[int, int]

    def of(self, rows: Sequence[int], columns: Sequence[int]) -> Sums:
        """Return the sums of these rows and columns alone."""

        def cut(matrix: Tensor) -> Tensor:
            return matrix[..., list(rows), :][..., list(columns)]

        groups = self.groups
        if groups is not None:
            cross, own_a, own_b, counts = groups
            groups = (cut(cross), own_a[:, list(rows)], own_b[:, list(columns)], counts)
        return replace(
            self,
            cross=cut(self.cross),
            own_a=self.own_a[list(rows)],
            own_b=self.own_b[list(columns)],
            noise=None if self.noise is None else cut(self.noise),
            null=None if self.null is None else cut(self.null),
            groups=groups,
        )


def check_permutations(count: int) -> int:
    """Return `count`, or raise `UsageError` if it is too small to call anything significant."""
    if count and count < LEAST_PERMUTATIONS:
        raise UsageError(
            f"permutations={count!r} must be 0, or {LEAST_PERMUTATIONS} or more: "
            "the lowest p-value is 1/(1 + permutations)"
        )
    return count


def noise_of(own_a: Tensor, own_b: Tensor, samples: int, weight: float) -> Tensor:
    """Return the variance (rows, columns) of weight x HSIC1 where samples are paired at random.

    Exact over all permutations of the samples of one side; `own_a` (rows,) and `own_b` (columns,)
    are HSIC1(K, K) of the batch.
    """
    scale = 2 * weight**2 / (samples * (samples - 3))
    return torch.outer(own_a * scale, own_b)


def orders(grams: Sequence[Gram], seed: tuple[int, int], batch: int, count: int) -> Tensor:
    """Return the permutations (count, samples) of a batch.

    They are drawn by the batch's number and go by what the samples are: the order in which they
    lie in the batch, another one where devices share it, changes nothing.
    """
    draw = np.random.default_rng([*seed, batch])
    samples = grams[0].samples
    drawn = draw.permuted(np.broadcast_to(np.arange(samples), (count, samples)), axis=1)
    place = _by_content(grams).cpu()
    result = torch.empty(count, samples, dtype=torch.int64)
    result[:, place] = place[torch.from_numpy(drawn)]
    return result


def _by_content(grams: Sequence[Gram]) -> Tensor:
    """Return the samples from the nearest to the mean to the farthest, over all layers."""
    diagonals = torch.stack([layer.diagonal for layer in grams])
    relative = diagonals / diagonals.sum(1, keepdim=True)
    return relative.nan_to_num(0.0).sum(0).argsort(stable=True)


def permuted_hsic(
    grams_a: Sequence[Gram], grams_b: Sequence[Gram], permutations: Tensor, estimator: str
) -> Tensor:
    """Return HSIC (permutations, len(a), len(b)) with the samples of all of b permuted together.

    Relative to √(HSIC(K, K)·HSIC(L, L)), so that no size of the features leaves float32; exact to
    1e-6. No feature is looked at again: K and L are permuted as they are.
    """
    device = grams_a[0].diagonal.device
    with hsic.full_precision(device):
        n = grams_a[0].samples
        row, column = torch.triu_indices(n, n, device=device).unbind()
        twice = torch.where(row == column, 1.0, 2.0)[:, None]  # both triangles in one
        left = (_stacked(grams_a, estimator)[row * n + column] * twice).T.contiguous()
        right = _stacked(grams_b, estimator)
        shape = (len(permutations), len(grams_a), len(grams_b))
        result = torch.empty(shape, dtype=torch.float64, device=device)
        step = max(1, _CHUNK_NUMBERS // (len(row) * len(grams_b)))
        for start in range(0, len(permutations), step):
            some = permutations[start : start + step].to(device).T
            places = some[row] * n + some[column]
            moved = right.index_select(0, places.flatten()).view(len(row), -1)
            products = (left @ moved).view(len(grams_a), -1, len(grams_b))
            result[start : start + step] = products.transpose(0, 1)
        return result


def _stacked(grams: Sequence[Gram], estimator: str) -> Tensor:
    """Return the centred matrices (n², len(grams)), each of norm 1; one of zeros stays so."""
    columns = []
    for layer in grams:
        matrix = layer.kernel_matrix()
        if estimator == "unbiased":
            matrix = _u_centred(matrix)
        norm = matrix.norm()
        columns.append((matrix / torch.where(norm == 0, 1.0, norm)).flatten().float())
    return torch.stack(columns, dim=1)


def _u_centred(matrix: Tensor) -> Tensor:
    """Return, of a centred matrix (n, n), that with zero diagonal and zero sums of rows.

    Székely & Rizzo 2014, eq. 2.1, of the matrix without its diagonal: row i then sums to -kᵢᵢ.
    """
    n, diagonal = len(matrix), matrix.diagonal()
    shift = diagonal / (n - 2) - diagonal.sum() / (2 * (n - 1) * (n - 2))
    return (matrix + shift + shift[:, None]).fill_diagonal_(0)


def assess(sums: Sums, itself: Tensor) -> Significance:
    """Return what the sums say of their CKA matrix.

    Args:
        itself: cells (rows, columns) of a layer with itself.
    """
    root_a, root_b = (
        torch.where(own > 0, own, torch.nan).sqrt() for own in (sums.own_a, sums.own_b)
    )
    scale = root_a[:, None] * root_b
    value = sums.cross / scale
    result, mirrored = Significance(itself), _is_mirrored(itself)
    if sums.noise is not None:
        floor = sums.noise.sqrt() / scale
        result = replace(result, floor=floor, threshold=2 * floor)
    if sums.null is not None:
        result = _against(value, sums.null / scale, result, mirrored=mirrored)
    if result.threshold is not None:
        above = (value > result.threshold + (_TIE if sums.null is not None else 0)) & ~itself
        result = replace(result, significant=above)
    if sums.groups is not None and int((sums.groups[-1] > 0).sum()) >= LEAST_GROUPS:
        lower, upper = bootstrap(*sums.groups, sums.seed, mirrored=mirrored)
        result = replace(result, lower=lower, upper=upper)
    return result


def _is_mirrored(itself: Tensor) -> bool:
    """Whether rows and columns are the same layers of one model: (i, j) is (j, i)."""
    return itself.shape[0] == itself.shape[1] and bool(itself.diagonal().all())


def _against(value: Tensor, null: Tensor, result: Significance, *, mirrored: bool) -> Significance:
    """Compare values with their permutations, cell by cell and with the largest of each."""
    if mirrored:  # one test for each pair of layers
        null = null.triu() + null.triu(1).mT
    count = len(null)
    rank = int(LEVEL * (count + 1) + 1e-9)
    threshold = null.topk(rank, dim=0).values[-1]
    tests = ~result.itself & value.isfinite()
    largest = null.masked_fill(~tests, -torch.inf).flatten(1).amax(1)
    at_least = value - _TIE
    beaten = (null >= at_least).sum(0)
    beaten_by_largest = count - torch.searchsorted(largest.sort().values, at_least.contiguous())
    familywise = largest.topk(rank).values[-1] if tests.any() else largest.new_tensor(torch.nan)

    def p_of(larger: Tensor) -> Tensor:
        return torch.where(tests, (1 + larger.double()) / (1 + count), torch.nan)

    return replace(
        result,
        threshold=threshold,
        p_values=p_of(beaten),
        familywise_threshold=familywise,
        familywise_p=p_of(beaten_by_largest),
        permutations=count,
    )


def bootstrap(
    cross: Tensor,
    own_a: Tensor,
    own_b: Tensor,
    batches: Tensor,
    seed: tuple[int, int],
    *,
    mirrored: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the 95 % interval of CKA (rows, columns) by resampling groups of batches.

    Percentiles, widened for few groups by Student's distribution (Hesterberg 2015, section 3.3).

    Args:
        cross, own_a, own_b: sums of HSIC by group, (groups, …).
        batches: how many each group has, (groups,); empty ones are left out.
        mirrored: (i, j) is (j, i): half the cells are enough.
    """
    filled = batches > 0
    cross, own_a, own_b = cross[filled], own_a[filled], own_b[filled]
    groups, rows, columns = cross.shape
    ends = cross.new_full((2, rows, columns), torch.nan)
    draw = np.random.default_rng([*seed, groups])
    counts = torch.from_numpy(draw.multinomial(groups, [1 / groups] * groups, RESAMPLES).T)
    rank = max(1, round(_tail(groups) * RESAMPLES))
    with hsic.full_precision(cross.device):
        counts = counts.to(cross)
        root_a, root_b = ((own.T @ counts).sqrt_() for own in (own_a, own_b))
        for row in range(rows):  # one at a time stays in the processor's cache
            first = row if mirrored else 0
            values = cross[:, row, first:].T @ counts
            values.div_(root_a[row]).div_(root_b[first:])
            ends[0, row, first:] = values.topk(rank, largest=False).values[:, -1]
            ends[1, row, first:] = values.topk(rank).values[:, -1]
            ends[:, row, first:].masked_fill_(~values.sum(1).isfinite(), torch.nan)
    if mirrored:
        ends = ends.triu() + ends.triu(1).mT
    return ends[0], ends[1]


def _tail(groups: int) -> float:
    """Return the percentile of each end: Φ(√(g/(g-1)) · t(g-1, 0.025)), nearly 0.025 if g is large.

    Resampling g values shows them √((g-1)/g) too near to each other, and normal where they are t.
    """
    from scipy.special import ndtr, stdtrit

    return float(ndtr((groups / (groups - 1)) ** 0.5 * stdtrit(groups - 1, LEVEL / 2)))
