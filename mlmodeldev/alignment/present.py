"""CKA of the layers that gave features: a pattern such as ``**`` matches others too.

    metric = PresentCKA(["net", "net.0", "loss"])
    metric.update(seen, None, batch_size=16)      # as `Capture.take_usable` returned it
    matrix, rows, columns = metric.result()       # without the layers that were left out
    metric.new_line("drift")                      # names them and says why, once

A layer is left out whole if one of its batches, on any process, gave nothing that fits: sums over
different batches would not be comparable.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from mlmodeldev.alignment.capture import Seen
from mlmodeldev.alignment.hsic import Gram
from mlmodeldev.alignment.metric import CKA
from mlmodeldev.alignment.of_ranks import gathered
from mlmodeldev.alignment.significance import Significance

_NAMED = 12
"""So many layers are named in the one line; the .npz has all."""


class PresentCKA(CKA):
    """`CKA` that does without layers.

    Args:
        paired: whether the i-th row and the i-th column belong together; then both leave.
        arguments: as `CKA`'s.
    """

    absent: Tensor

    def __init__(self, *arguments: Any, paired: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        rows, columns = len(self.layers_a), len(self.layers_b)
        self.paired = paired and rows == columns
        self.reasons: dict[str, str] = {}
        self.left_out: tuple[str, ...] = ()
        self.present_also: dict[str, Tensor] = {}  # `compute_also`, of the layers in `result`
        self._reported: set[str] = set()
        zeros = torch.zeros(rows + columns, dtype=torch.int64)
        self.add_state("absent", zeros, dist_reduce_fx="sum")
        self._absent: list[bool] = [False] * (rows + columns)

    def update(  # type: ignore[override]
        self,
        live: Seen[Gram],
        other: Seen[Gram] | None = None,
        batch_size: int | None = None,
        number: int | None = None,
    ) -> None:
        """Add a batch: what the rows' model gave, and the columns', if that is another one.

        Args:
            batch_size: examples in the batch, if that is clear; features have as many rows.
            number: the batch's among those of all processes.
        """
        sides = [
            (live[0], self.layers_a),
            ((live if other is None else other)[0], self.layers_b),
        ]
        self.reasons |= {**(other[1] if other else {}), **live[1]}
        given = [seen.get(name) for seen, names in sides for name in names]
        names = [name for _, layers in sides for name in layers]
        count = _samples([one for one in given if one is not None], batch_size)
        nothing = self.gram(torch.zeros(max(count, 1), 1, device=self.cross.device))
        whole: list[Gram] = []
        for place, (name, one) in enumerate(zip(names, given, strict=True)):
            if one is not None and one.samples != count:
                self.reasons[name] = f"gives {one.samples} rows for {count} examples"
            if one is None or one.samples != count:
                self.absent[place] += 1
                one = nothing  # noqa: PLW2901
            whole.append(one)
        rows = len(self.layers_a)
        if count:
            self._add(whole[:rows], whole[rows:], number, one_sided=other is None)

    def compute(self) -> Tensor:
        """Return the whole matrix; rows and columns of layers without features are NaN."""
        self._absent = [bool(count) for count in self.absent.tolist()]
        return super().compute()

    def report(self) -> list[str]:
        """Return `CKA.report` without what it says of layers that were left out."""
        gone = self.absent.bool()
        kept = self.constant, self.not_finite
        self.constant, self.not_finite = (counts.masked_fill(gone, 0) for counts in kept)
        try:
            return super().report()
        finally:
            self.constant, self.not_finite = kept

    def _lost(self) -> list[bool]:
        absent = self.absent.tolist()
        return [lost and not gone for lost, gone in zip(super()._lost(), absent, strict=True)]

    def result(self) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
        """Return the matrix of the layers that are there, and their names; all ranks call this."""
        matrix = self.compute()
        for of_rank in gathered(self.reasons):
            self.reasons = {**of_rank, **self.reasons}
        here, there = self._present()
        sides = ((self.layers_a, here), (self.layers_b, there))
        gone = [n for names, kept in sides for i, n in enumerate(names) if i not in kept]
        self.left_out = tuple(dict.fromkeys(gone))
        self.present_also = {
            name: values[here][:, there] for name, values in self.compute_also().items()
        }
        return (
            matrix[here][:, there],
            tuple(self.layers_a[i] for i in here),
            tuple(self.layers_b[i] for i in there),
        )

    def significance(self) -> Significance:
        """Return `CKA.significance` of the layers that are in `result`; all ranks call this."""
        self.compute()
        return self._assess(*self._present())

    def _present(self) -> tuple[list[int], list[int]]:
        """Return which rows and columns are there, as of the last `compute`."""
        rows, columns = self._absent[: len(self.layers_a)], self._absent[len(self.layers_a) :]
        if self.paired:
            rows = columns = [a or b for a, b in zip(rows, columns, strict=True)]
        here, there = ([i for i, gone in enumerate(side) if not gone] for side in (rows, columns))
        return here, there

    def new_line(self, name: str) -> str:
        """Return one line on the layers that were left out, or nothing if it has been said."""
        if set(self.left_out) <= self._reported:
            return ""
        self._reported |= set(self.left_out)
        partner = "is left out with its partner"
        parts = [f"{one!r} {self.reasons.get(one, partner)}" for one in self.left_out]
        shown, more = "; ".join(parts[:_NAMED]), len(parts) - _NAMED
        total = len({*self.layers_a, *self.layers_b})
        return f"cka: {name}: {len(parts)} of {total} layers are left out: {shown}" + (
            f"; and {more} more" if more > 0 else ""
        )


def _samples(grams: list[Gram], batch_size: int | None) -> int:
    """Return how many examples the features are of: as the batch has, else as most have."""
    sizes = Counter(one.samples for one in grams)
    if batch_size is not None and batch_size in sizes:
        return batch_size
    return sizes.most_common(1)[0][0] if sizes else 0


def size_of_batch(batch: Any) -> int | None:
    """Return the length of the first tensor in a batch; None if there is none."""
    from torch.utils._pytree import tree_leaves

    first = next((one for one in tree_leaves(batch) if isinstance(one, Tensor) and one.ndim), None)
    return None if first is None else len(first)
