"""The next point of a search: listed for grid and random, suggested by TPE for bayes.

Example::

    proposals = Proposals(sweep, seed=0)
    proposals.next(study, known={"ab12cd34"}, rows=[])      # a Proposal, or None: no more

Grid and random give the very trials that enumeration gives. Bayes (Optuna's TPE, which takes
running trials for bad ones so that workers spread) begins with the points of a random search, and
is seeded by the number of the trial: one worker alone repeats its search exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlmodeldev.sweep.loading import Sweep
from mlmodeldev.sweep.optuna_space import distribution, from_quantile, to_param, to_value
from mlmodeldev.sweep.space import MAX_REDRAWS, uniform
from mlmodeldev.sweep.trial import Trial

STARTUP = 10
"""A bayes search draws so many points at random before it suggests; fewer under a small cap."""
MAX_SUGGESTIONS = 20
"""Suggestions that are known already or break a constraint, before points are drawn at random."""


@dataclass(frozen=True)
class Proposal:
    """A trial and what Optuna is to know of it."""

    trial: Trial
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)


class Proposals:
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
        self, study: Study, known: Collection[str], rows: Sequence[FrozenTrial]
    ) -> Proposal | None:
        """Return a trial that is not known yet, or None where there is no more.

        Args:
            study: what has been found so far.
            known: identities of all trials begun so far.
            rows: the study's trials, in their order.
        """
        if self.sweep.method != "bayes":
            listed = next((trial for trial in self._listed if trial.id not in known), None)
            return None if listed is None else self.described(listed)
        return next(self._new(self._points(study, rows), known), None)

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

    def _new(
        self, points: Iterator[tuple[dict[str, Any], dict[str, Any]]], known: Collection[str]
    ) -> Iterator[Proposal]:
        for params, point in points:
            for repeated in self.space.repeated(point):
                trial = Trial(repeated, self.sweep.naming)
                if trial.id not in known:
                    yield self._proposal(trial, {k: v for k, v in params.items() if k in point})

    def _points(
        self, study: Study, rows: Sequence[FrozenTrial]
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield candidates, the preferred one first: what Optuna knows, and the point."""
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

    def _assembled(self, params: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
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
        candidate = create_trial(state=TrialState.RUNNING)
        # Together what all trials have, one by one what a condition leaves out of some.
        alone = self.sweep.definition.conditions.keys()
        joint = {name: each for name, each in self.distributions.items() if name not in alone}
        spaces = [joint, *({name: self.distributions[name]} for name in alone)]
        # Not sample_relative, which writes what it finds to a trial that is not there yet.
        found: dict[str, Any] = {}
        for space in spaces:
            found |= sampler._sample(study, candidate, space) if space else {}
        return found
