"""The space of a sweep: the points that its file declares, walked or drawn.

Example::

    space = Space(definition)
    space.count()                       # points of the grid, counted without listing them
    next(space.walk())                  # the first point, coarse levels first
    next(space.draw(seed=0))            # the first random point
    space.point({"optimizer.lr": 0.5})  # the point at these quantiles; what a search calls

A point is a mapping of dotted keys to values, with ties resolved, parameters whose condition
does not hold left out, and every constraint true.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import identity, references
from mlmodeldev.settings.many_identities import Identities
from mlmodeldev.sweep.definition import Definition
from mlmodeldev.sweep.distributions import quantile
from mlmodeldev.sweep.grid import Axis, Lattice, coarse_first, count_of
from mlmodeldev.sweep.parameters import Parameter
from mlmodeldev.sweep.rules import Rules

Point = dict[str, Any]

MAX_REDRAWS = 1000
"""A random point that is a duplicate or breaks a constraint is drawn again so many times."""


MAX_COUNTED = 10**7
"""Points that constraints and conditions tie together are counted one by one up to so many."""
MAX_LEFT_OVER = 10**5
"""Larger countable spaces are not searched for the points that chance has left out."""
MAX_REFUSED = 10**6
"""So many points of a grid in a row may break the constraints before the walk gives up."""


class Space:
    """The points of one sweep."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.rules = Rules(definition)
        self._identities = Identities()
        # All keys in the file's order, so that every point lists them in that order.
        self._template = {p.name: p.fields.get("value") for p in definition.parameters}
        varied = [p for p in definition.parameters if not p.is_constant]
        self.searched: list[Parameter] = [p for p in varied if p.name not in definition.replicates]
        """The parameters that are walked, drawn or searched: neither constant nor replicated."""
        self.replicated = [p for p in varied if p.name in definition.replicates]
        """The parameters whose every value repeats each point."""

    @property
    def keys(self) -> Collection[str]:
        """The dotted keys that the sweep sets, constants included."""
        return self._template.keys()

    def walk(self) -> Iterator[Point]:
        """Yield every point of a grid, coarse levels first, all points for each replicate."""
        axes = [Axis.of(parameter) for parameter in self.searched]
        points = (
            point
            for repeat in self.repeats()
            for point in self._walk(axes, {**self._template, **repeat})
        )
        return self._without_repetition(points) if self._may_coincide() else points

    def _walk(self, axes: list[Axis], template: Point) -> Iterator[Point]:
        conditions = self.definition.conditions
        conditional = [i for i, axis in enumerate(axes) if axis.name in conditions]
        columns = [(axis.name, _listed(axis.values)) for axis in axes]
        ruled, refused = self.rules.any, 0
        for indices in coarse_first(axes):
            raw = dict(template)
            for (name, values), index in zip(columns, indices, strict=True):
                raw[name] = values[index]
            if not ruled:
                yield raw
                continue
            point = self.rules.apply(raw)
            refused = 0 if point is not None else refused + 1
            if refused > MAX_REFUSED:
                self._refuse(f"{MAX_REFUSED} points of the grid in a row break the constraints")
            # Where a parameter is left out, its axis gives the same point for every value:
            # the first value stands for all.
            if point is not None and all(
                indices[i] == 0 or axes[i].name in point for i in conditional
            ):
                yield point

    def _refuse(self, message: str) -> NoReturn:
        raise UsageError(f"{self.definition.file}: controller.constraints: {message}")

    def repeats(self) -> Iterator[Point]:
        """Yield the values of the replicated parameters, in every combination."""
        axes = [Axis.of(parameter) for parameter in self.replicated]
        for values in itertools.product(
            *([axis.values[i] for i in range(len(axis.values))] for axis in axes)
        ):
            yield {axis.name: value for axis, value in zip(axes, values, strict=True)}

    def _may_coincide(self) -> bool:
        """True if two points of the grid may be one once ties among values are resolved."""
        return any(references(p.fields.get("values")) for p in self.searched + self.replicated)

    @staticmethod
    def _without_repetition(points: Iterator[Point]) -> Iterator[Point]:
        seen: set[str] = set()
        for point in points:
            key = identity(point)
            if key not in seen:
                seen.add(key)
                yield point

    @property
    def has_rules(self) -> bool:
        """Whether a rule may leave points of the grid out."""
        return bool(self.definition.constraints or self.definition.conditions)

    def product(self) -> int:
        """Return the number of points of a grid before any rule, replicates included."""
        return math.prod(count_of(p) for p in self.searched + self.replicated)

    def count(self) -> int:
        """Return the number of points of a grid, replicates included.

        Without constraints and conditions this is a product. With them, only the parameters that
        they name are walked, each group that hangs together by itself.
        """
        if self._may_coincide():
            return sum(1 for _ in self.walk())
        axes = {p.name: Axis.of(p) for p in self.searched + self.replicated}
        total = int(self._part(frozenset()).rules.apply(self._template) is not None)
        for group in self.rules.groups(list(axes)):
            members = [axes[name] for name in axes if name in group]
            size = math.prod(len(axis.values) for axis in members)
            if self.rules.concern(group):
                self._refuse_uncountable(size)
                size = sum(1 for _ in self._part(group)._walk(members, self._template))
            total *= size
        return total

    def _refuse_uncountable(self, size: int) -> None:
        if size > MAX_COUNTED:
            self._refuse(f"tie {size:.1e} points together, too many to count (10⁷)")

    def _part(self, group: frozenset[str]) -> Space:
        part = Space(self.definition)
        part.rules = self.rules.only(group)
        return part

    def point(self, quantiles: Mapping[str, float]) -> Point | None:
        """Return the point at these quantiles (0 < u < 1) of the searched parameters.

        Replicated parameters are not set. None if a constraint does not hold there.
        """
        return self.assemble({p.name: quantile(p, quantiles[p.name]) for p in self.searched})

    def assemble(self, values: Mapping[str, Any]) -> Point | None:
        """Return the point with these values of the searched parameters, as `point` does."""
        raw = {**self._template, **values}
        for parameter in self.replicated:
            del raw[parameter.name]
        return self.rules.apply(raw)

    def draw(self, seed: int = 0) -> Iterator[Point]:
        """Yield random points without end, or until `MAX_REDRAWS` draws give nothing new.

        Draw i of a parameter depends on the seed, i and the parameter's name alone: the points
        are the same on every machine, and a new parameter in the file leaves the values of the
        others as they were. Each point is repeated for each replicate. A countable space ends
        with the points that chance has left out.
        """
        seen: set[str] = set()
        for index in itertools.count():
            point = self._fresh(seed, index, seen)
            if point is None:
                break
            yield from self.repeated(point)
        if not seen:
            self._refuse(f"none of {MAX_REDRAWS} random points fits the constraints")
        yield from self.left_over(seen)

    def _fresh(self, seed: int, index: int, seen: set[str]) -> Point | None:
        names = [parameter.name for parameter in self.searched]
        for attempt in range(MAX_REDRAWS):
            point = self.point({name: uniform(seed, index, attempt, name) for name in names})
            if point is None:
                continue
            key = self._identities(tuple(point), tuple(point.values()))
            if key not in seen:
                seen.add(key)
                return point
        return None

    def repeated(self, point: Point) -> Iterator[Point]:
        """Yield a point once for each combination of the replicated parameters' values."""
        if not self.replicated:
            yield point
            return
        for repeat in self.repeats():
            both = {**point, **repeat}
            yield self.rules.tie({key: both[key] for key in self._template if key in both})

    def left_over(self, seen: set[str]) -> Iterator[Point]:
        """Yield what random draws have not met, if the space can be walked with equal chances."""
        for parameter in self.searched:
            listed = parameter.distribution in ("categorical", "int_uniform")
            if not listed or "probabilities" in parameter.fields:
                return
        axes = [Axis.of(parameter) for parameter in self.searched]
        if math.prod(len(axis.values) for axis in axes) > MAX_LEFT_OVER:
            return
        bare = {k: v for k, v in self._template.items() if k not in self.definition.replicates}
        for point in self._walk(axes, bare):
            key = identity(point)
            if key not in seen:
                seen.add(key)
                yield from self.repeated(point)


def _listed(values: Sequence[Any] | Lattice) -> Sequence[Any] | Lattice:
    """Return short axes as lists: points then share their values, and none is worked out twice."""
    return [values[i] for i in range(len(values))] if len(values) <= MAX_LEFT_OVER else values


def uniform(seed: int, index: int, attempt: int, name: str) -> float:
    """Return a number in (0, 1), never 0 or 1: the hash of its arguments.

    >>> uniform(0, 0, 0, "optimizer.lr") == uniform(0, 0, 0, "optimizer.lr")
    True
    """
    text = f"{seed}\n{index}\n{attempt}\n{name}".encode()
    bits = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 12
    return (bits + 0.5) / 2**52
