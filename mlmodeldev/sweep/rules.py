"""The ties, conditions and constraints of a sweep, applied to its points.

A tie sets a parameter to another one's value, a condition says where a parameter is set at all, a
constraint which points are trials. For counting, the rules are parted into groups of parameters
that hang together.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from mlmodeldev.settings.identity import references, resolve_ties
from mlmodeldev.sweep.definition import Definition
from mlmodeldev.sweep.expression import Expression


class Rules:
    """The ties, conditions and constraints of one sweep."""

    def __init__(self, definition: Definition) -> None:
        self.conditions: dict[str, Expression] = definition.conditions
        self.constraints: tuple[Expression, ...] = definition.constraints
        self._axes = frozenset(p.name for p in definition.parameters if not p.is_constant)
        self._links = _tie_links(definition)
        self._tied = any(self._links.values())

    @property
    def any(self) -> bool:
        """Whether there is a rule or a tie at all."""
        return bool(self._tied or self.conditions or self.constraints)

    def apply(self, raw: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the point of these raw values, or None where a constraint does not hold.

        A parameter whose condition does not hold is left out; a condition that asks about such
        a parameter does not hold; a constraint that names one is met.
        """
        point = self.tie(raw)
        if self.conditions:
            absent = self._absent(point)
            if absent:
                point = self.tie({k: value for k, value in raw.items() if k not in absent})
        return None if self.broken(point) else point

    def tie(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values with ties among them resolved."""
        return resolve_ties(raw) if self._tied else dict(raw)

    def broken(self, point: Mapping[str, Any]) -> Expression | None:
        """Return the first constraint that a point breaks, or None."""
        for constraint in self.constraints:
            if constraint.names <= point.keys() and not constraint.holds(point):
                return constraint
        return None

    def _absent(self, point: Mapping[str, Any]) -> set[str]:
        absent: set[str] = set()
        decided: set[str] = set()

        def decide(name: str) -> bool:
            if name in self.conditions and name not in decided:
                decided.add(name)
                condition = self.conditions[name]
                if not all(decide(n) for n in condition.names) or not condition.holds(point):
                    absent.add(name)
            return name in point and name not in absent

        for name in self.conditions:
            if name in point:
                decide(name)
        return absent

    def followers(self, names: Iterable[str]) -> set[str]:
        """Return the parameters that are tied to one of these, directly or through others."""
        reached = set(names)
        while True:
            more = {name for name, tied in self._links.items() if tied & reached} - reached
            if not more:
                return reached - set(names)
            reached |= more

    def groups(self, axes: list[str]) -> list[frozenset[str]]:
        """Part the axes into groups, such that no rule names axes of two groups."""
        groups = [{name} for name in axes]
        for names in self._spans():
            touched = [group for group in groups if group & names]
            if touched:
                groups = [g for g in groups if not g & names] + [set().union(*touched)]
        return [frozenset(group) for group in groups]

    def concern(self, group: frozenset[str]) -> bool:
        """True if a rule names one of the group."""
        return any(names & group for names in self._spans())

    def only(self, group: frozenset[str]) -> Rules:
        """Return the rules that name one of the group; of no group, those that name no axis."""
        part = copy.copy(self)
        part.conditions = {k: r for k, r in self.conditions.items() if self._within({k}, group)}
        part.constraints = tuple(r for r in self.constraints if self._within(r.names, group))
        return part

    def _within(self, names: frozenset[str] | set[str], group: frozenset[str]) -> bool:
        named = self._reach(names) & self._axes
        return bool(named & group) if group else not named

    def _spans(self) -> list[set[str]]:
        spans = [self._reach(rule.names) for rule in self.constraints]
        return spans + [self._reach({key, *rule.names}) for key, rule in self.conditions.items()]

    def _reach(self, names: frozenset[str] | set[str]) -> set[str]:
        """Return the names, what they are tied to, and what decides whether they are set."""
        reached: set[str] = set()
        ahead = set(names)
        while ahead:
            reached |= ahead
            ahead = {
                other
                for name in ahead
                for other in self._links[name]
                | (self.conditions[name].names if name in self.conditions else frozenset())
            } - reached
        return reached


def _tie_links(definition: Definition) -> dict[str, frozenset[str]]:
    names = {parameter.name for parameter in definition.parameters}
    return {
        p.name: frozenset(references(p.fields.get("values", p.fields.get("value"))) & names)
        for p in definition.parameters
    }
