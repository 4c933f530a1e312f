"""Grid axes and the order in which a grid is walked: coarse first, nothing listed.

Example, one numeric axis of five values and one of words::

    [0.1, 0.2, 0.3, 0.4, 0.5] x [sgd, adamw]
    # first  0.1 0.5 with both words: every 4th value
    # then   0.3     with both words: every 2nd value
    # then   0.2 0.4 with both words: the rest

A numeric axis in rising or falling order is refined by halving its stride, and all axes are
refined together, so any beginning of the walk covers the whole range. Other axes (words, lists,
numbers in no order) are walked in the order written. Memory does not grow with the grid.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlmodeldev.sweep.parameters import Parameter, distinct

MAX_VALUES = 10**15
"""An axis with more values than this is refused."""
_SMALL = 100_000


@dataclass(frozen=True)
class Lattice:
    """The values ``low + i * step`` for i below ``size``, worked out when asked for."""

    low: float
    step: float
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> float:
        return self.low + index * self.step


@dataclass(frozen=True)
class Axis:
    """One swept parameter of a grid: its values and the levels they are visited in."""

    name: str
    values: Sequence[Any] | Lattice
    levels: tuple[range, ...]
    """Indices of the values, coarsest level first; each index is in one level."""

    @classmethod
    def of(cls, parameter: Parameter) -> Axis:
        """Return the axis of a parameter with countable values."""
        values = countable_values(parameter)
        return cls(parameter.name, values, levels(values))


def countable_values(parameter: Parameter) -> Sequence[Any] | Lattice:
    """Return the values of a categorical, int_uniform or q_uniform parameter, without listing.

    As on W&B, q_uniform counts up from ``min`` by ``q`` and leaves ``max`` out.
    """
    fields = parameter.fields
    if parameter.distribution == "categorical":
        return distinct(fields["values"])
    if parameter.distribution == "constant":
        return [fields["value"]]
    if parameter.distribution == "int_uniform":
        return range(fields["min"], fields["max"] + 1)
    low, high, q = fields["min"], fields["max"], fields["q"]
    size = max(math.ceil((high - low) / q), 1)
    # The step as it is after rounding at `low`, which is how numpy.arange (W&B) counts.
    return Lattice(low, (low + q) - low, size)


def count_of(parameter: Parameter) -> int:
    """Return how many values a countable parameter has, however many."""
    if parameter.distribution == "int_uniform":
        return int(parameter.fields["max"] - parameter.fields["min"] + 1)
    return len(countable_values(parameter))


def levels(values: Sequence[Any] | Lattice) -> tuple[range, ...]:
    """Return the indices of the values as ranges, coarsest first."""
    size = len(values)
    if size < 3 or not _in_order(values):
        return (range(size),)
    power = (size - 1).bit_length() - 1
    halved = (range(2**k, size, 2 ** (k + 1)) for k in range(power - 1, -1, -1))
    return (range(0, size, 2**power), *halved)


def _in_order(values: Sequence[Any] | Lattice) -> bool:
    if isinstance(values, range | Lattice):
        return True
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return False
    pairs = list(itertools.pairwise(values))
    return all(a < b for a, b in pairs) or all(a > b for a, b in pairs)


@dataclass(frozen=True)
class _Span:
    """Some levels of one axis, as one collection of indices."""

    ranges: tuple[range, ...]

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(self.ranges)

    def __len__(self) -> int:
        return sum(map(len, self.ranges))


def coarse_first(axes: Sequence[Axis]) -> Iterator[tuple[int, ...]]:
    """Yield every point of the grid once, as one index for each axis, coarse levels first.

    Within a level the first axis varies slowest.
    """
    if not axes:
        yield ()
    for level in range(max((len(axis.levels) for axis in axes), default=0)):
        # Of the axes, `finest` is the first to stand exactly at this level: that parts the
        # points of a level into sets that do not overlap.
        # At the coarsest that is the first axis: those before it would have no level at all.
        for finest, axis in enumerate(axes[:1] if level == 0 else axes):
            if level < len(axis.levels):
                yield from _product(
                    [_Span(_part(a.levels, level, i - finest)) for i, a in enumerate(axes)]
                )


def _part(of: tuple[range, ...], level: int, side: int) -> tuple[range, ...]:
    if side < 0:
        return of[:level]
    return of[level : level + 1] if side == 0 else of[: level + 1]


def _product(spans: list[_Span]) -> Iterator[tuple[int, ...]]:
    """Yield as `itertools.product` does, which would hold long spans in memory."""
    parts = _parts(spans)
    chosen: list[tuple[int, ...]] = []
    ahead = [parts[0]()]
    while ahead:  # no recursion: there may be thousands of parts
        piece = next(ahead[-1], None)
        if piece is None:
            ahead.pop()
            del chosen[-1:]
        elif len(ahead) == len(parts):
            yield tuple(itertools.chain(*chosen, piece))
        else:
            chosen.append(piece)
            ahead.append(parts[len(ahead)]())


_Part = Callable[[], Iterator[tuple[int, ...]]]


def _parts(spans: list[_Span]) -> list[_Part]:
    """Return short spans that follow each other as one part, each long one as its own."""
    parts: list[_Part] = []
    for is_short, group in itertools.groupby(spans, lambda span: len(span) <= _SMALL):
        if is_short:
            parts.append(functools.partial(itertools.product, *group))
        else:
            parts += [functools.partial(_each, span) for span in group]
    return parts


def _each(span: _Span) -> Iterator[tuple[int, ...]]:
    return ((index,) for index in span)
