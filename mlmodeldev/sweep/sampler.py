"""The next point of a search: listed for grid and random, suggested by TPE for bayes.

Grid and random give the very trials that enumeration gives. Bayes (Optuna's TPE, which takes
running trials for bad ones so that workers spread) begins with the points of a random search, and
is seeded by the number of the trial: one worker alone repeats its search exactly.

The second half says how W&B's distributions are searched by Optuna: as its own where it has the
very same one (a listed value by its place in the list), else as a quantile.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlmodeldev.settings.identity import canonical_text
from mlmodeldev.sweep.distributions import quantile
from mlmodeldev.sweep.loading import Sweep
from mlmodeldev.sweep.naming import Trial
from mlmodeldev.sweep.parameters import Parameter, distinct
from mlmodeldev.sweep.space import MAX_REDRAWS, uniform

STARTUP = 10
"""A bayes search draws so many points at random before it suggests; fewer under a small cap."""
MAX_SUGGESTIONS = 20
"""Suggestions that were begun already or break a constraint, before points are drawn at random."""


@dataclass(frozen=True)
class Proposal:
    """A trial, and its parameters in Optuna's terms."""

    trial: Trial
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)


Candidate = tuple[dict[str, Any], dict[str, Any]]
"""A point in Optuna's terms, and the point."""


class Sampler:
    """Gives one new point after the other.

    Args:
        sweep: the sweep.
        seed: of the draws, and of the suggestions.
        count: at most so many trials; the file's ``run_cap`` holds besides.
    """

    def __init__(self, sweep: Sweep, seed: int = 0, count: int | None = None) -> None:
        self.sweep, self.seed = sweep, seed
        self.space = sweep.space
        self.distributions = {p.name: distribution(p) for p in self.space.searched}
        self._listed = iter(()) if sweep.method == "bayes" else sweep.trials(count, seed)
        cap = min((c for c in (count, sweep.definition.run_cap) if c is not None), default=40)
        self.startup = min(STARTUP, max(2, cap // 4))

    def next(
        self, study: Study, begun: Collection[str], rows: Sequence[FrozenTrial]
    ) -> Proposal | None:
        """Return a trial that was not begun yet, or None where there is no more.

        Args:
            study: the results so far.
            begun: identities of all trials begun so far.
            rows: the study's trials, in their order.
        """
        if self.sweep.method != "bayes":
            listed = next((trial for trial in self._listed if trial.id not in begun), None)
            return None if listed is None else self.described(listed)
        return next(self._new(self._points(study, rows), begun), None)

    def described(self, trial: Trial) -> Proposal:
        """Return a trial with its place in Optuna's terms, where it has one."""
        params = {
            p.name: to_param(p, trial.overrides[p.name])
            for p in self.space.searched
            if p.name in trial.overrides
        }
        return self._proposal(trial, {k: v for k, v in params.items() if v is not None})

    def trial(self, overrides: dict[str, Any]) -> Trial:
        """Return the trial of these overrides, with the sweep's naming."""
        return Trial(overrides, self.sweep.naming)

    def _proposal(self, trial: Trial, params: dict[str, Any]) -> Proposal:
        return Proposal(trial, params, {name: self.distributions[name] for name in params})

    def _new(self, points: Iterator[Candidate], begun: Collection[str]) -> Iterator[Proposal]:
        for params, point in points:
            for repeated in self.space.repeated(point):
                trial = self.trial(repeated)
                if trial.id not in begun:
                    yield self._proposal(trial, {k: v for k, v in params.items() if k in point})

    def _points(self, study: Study, rows: Sequence[FrozenTrial]) -> Iterator[Candidate]:
        """Yield candidates, the preferred one first."""
        if rows and self.space.replicated:  # the last point's replicates come before a new point
            yield from self._assembled(rows[-1].params)
        number = len(rows)
        finished = sum(row.state in (TrialState.COMPLETE, TrialState.PRUNED) for row in rows)
        suggestions = MAX_SUGGESTIONS if finished >= self.startup else 0
        for attempt in range(suggestions):
            yield from self._assembled(self._suggested(study, number, attempt))
        for attempt in range(MAX_REDRAWS):
            yield from self._assembled(self._drawn(number, attempt))
        for point in self.space.left_over(set()):
            yield {}, point

    def _assembled(self, params: dict[str, Any]) -> Iterator[Candidate]:
        # A parameter that a condition left out of an earlier point has no place there.
        full = {p.name: params.get(p.name, from_quantile(p, 0.5)) for p in self.space.searched}
        values = {p.name: to_value(p, full[p.name]) for p in self.space.searched}
        point = self.space.assemble(values)
        if point is not None:
            yield full, point

    def _drawn(self, number: int, attempt: int) -> dict[str, Any]:
        return {
            p.name: from_quantile(p, uniform(self.seed, number, attempt, p.name))
            for p in self.space.searched
        }

    def _suggested(self, study: Study, number: int, attempt: int) -> dict[str, Any]:
        text = f"{self.seed}\n{number}\n{attempt}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
        sampler = TPESampler(n_startup_trials=0, multivariate=True, constant_liar=True, seed=seed)
        # Together what all trials have, one by one what a condition leaves out of some.
        alone = self.sweep.definition.conditions.keys()
        joint = {name: each for name, each in self.distributions.items() if name not in alone}
        spaces = [joint, *({name: self.distributions[name]} for name in alone)]
        params: dict[str, Any] = {}
        for space in spaces:
            params |= tpe_sample(sampler, study, space) if space else {}
        return params


def tpe_sample(
    sampler: TPESampler, study: Study, space: dict[str, BaseDistribution]
) -> dict[str, Any]:
    """Return the parameters that TPE suggests next.

    By a private method of Optuna, and only here: the public `sample_relative` writes what it
    suggests to a trial of the study, and there is none yet.
    """
    return sampler._sample(study, create_trial(state=TrialState.RUNNING), space)


EDGE = 2.0**-40
"""Quantiles this close to 0 and 1 are not searched: the tails of a normal have no end."""
NEAR = 1e-4
"""A value this close to what a quantile gives, relative to its size, is that quantile's."""
_EXACT_INTEGER = 2**53


def is_native(parameter: Parameter) -> bool:
    """Return whether Optuna has this very distribution."""
    fields = parameter.fields
    if parameter.distribution == "categorical":
        return "probabilities" not in fields
    if parameter.distribution == "int_uniform":
        return bool(max(abs(fields["min"]), abs(fields["max"])) < _EXACT_INTEGER)
    if parameter.distribution in ("uniform", "log_uniform_values"):
        return math.isfinite(float(fields["max"]) - float(fields["min"]))
    return False


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return the parameter's distribution in Optuna.

    A listed value is its place in the list; where all are numbers, their order is a scale, on which
    what is near to a good value is likely to be good as well.
    """
    fields = parameter.fields
    if not is_native(parameter):
        return FloatDistribution(EDGE, 1 - EDGE)
    if parameter.distribution == "categorical":
        size = len(_places(parameter))
        return (
            IntDistribution(0, size - 1)
            if _is_scale(parameter)
            else CategoricalDistribution(range(size))
        )
    if parameter.distribution == "int_uniform":
        return IntDistribution(fields["min"], fields["max"])
    log = parameter.distribution == "log_uniform_values"
    return FloatDistribution(float(fields["min"]), float(fields["max"]), log=log)


def _is_scale(parameter: Parameter) -> bool:
    values = parameter.fields["values"]
    return all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
        for each in values
    )


def _places(parameter: Parameter) -> list[Any]:
    """Return the listed values by their place in Optuna's terms: numbers by size."""
    listed = distinct(parameter.fields["values"])
    return sorted(listed) if _is_scale(parameter) else listed


def to_value(parameter: Parameter, param: Any) -> Any:
    """Return the trial's value for what Optuna suggested."""
    if not is_native(parameter):
        return quantile(parameter, param)
    if parameter.distribution == "categorical":
        return _places(parameter)[param]
    return param


def from_quantile(parameter: Parameter, u: float) -> Any:
    """Return what Optuna would have suggested at this quantile."""
    if not is_native(parameter):
        return min(max(u, EDGE), 1 - EDGE)
    if parameter.distribution == "categorical":
        listed = distinct(parameter.fields["values"])
        return _places(parameter).index(listed[min(int(u * len(listed)), len(listed) - 1)])
    return quantile(parameter, u)


def to_param(parameter: Parameter, value: Any) -> Any:
    """Return what Optuna would have had to suggest for this value; None if it never would."""
    if parameter.distribution == "categorical":
        return _category(parameter, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if is_native(parameter):
        fits = parameter.fields["min"] <= value <= parameter.fields["max"]
        if parameter.distribution == "int_uniform":
            return int(value) if fits and float(value).is_integer() else None
        return float(value) if fits else None
    return _inverse(parameter, value)


def _category(parameter: Parameter, value: Any) -> Any:
    values, text = parameter.fields["values"], canonical_text(value)
    if is_native(parameter):
        texts = [canonical_text(each) for each in _places(parameter)]
        return texts.index(text) if text in texts else None
    weights = parameter.fields["probabilities"]
    below = 0.0
    for each, weight in zip(values, weights, strict=True):
        if canonical_text(each) == text and weight > 0:
            return (below + weight / 2) / sum(weights)
        below += weight
    return None


def _inverse(parameter: Parameter, value: float) -> float | None:
    """Find the quantile of a value by halving: quantiles rise with u in every distribution."""
    first = _crossing(parameter, value, strict=False)
    last = _crossing(parameter, value, strict=True)
    middle = min(max((first + last) / 2, EDGE), 1 - EDGE)
    width = abs(quantile(parameter, 0.75) - quantile(parameter, 0.25))
    off = abs(quantile(parameter, middle) - value)
    return middle if off <= NEAR * max(abs(value), width) else None


def _crossing(parameter: Parameter, value: float, strict: bool) -> float:
    """Return the least u whose value is not below the given one (strict: is above it)."""
    low, high = EDGE, 1 - EDGE
    for _ in range(52):
        middle = (low + high) / 2
        reached = quantile(parameter, middle)
        if reached > value or (not strict and reached == value):
            high = middle
        else:
            low = middle
    return (low + high) / 2
