"""Which hyper-parameters matter: functional ANOVA over a sweep's trials, with its uncertainty.

Example::

    importances([({"optimizer.lr": 0.1, "width": 64}, 0.93), …])
    # [{"name": "optimizer.lr", "mean": 0.81, "low": 0.64, "high": 0.93}, …]

Functional ANOVA (Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter
Importance, ICML 2014), as Optuna has it: a forest of regression trees is fitted to the trials, and
its variance split among the parameters. It is fitted anew to `DRAWS` draws of the trials with
replacement; the interval is what the middle 80 % of them say.
"""

from __future__ import annotations

import math
import random
import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DRAWS = 20
FEWEST_TRIALS = 8
"""Fewer say nothing."""
MOST_TRIALS = 150
"""In one draw; more take minutes and say the same."""
_TREES = 16
_LOGARITHMIC = 30
"""Numbers whose largest is so many times the smallest are taken by their logarithm."""

Point = tuple[Mapping[str, Any], float]
"""A trial's parameters and its value."""


def importances(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the share of each parameter in the variance of the value, the largest first.

    Args:
        points: trials that are done; only parameters that all of them set are compared.

    Returns:
        nothing for fewer than `FEWEST_TRIALS` trials, one parameter that varies or equal values.
    """
    names = _varied(points)
    values = {value for _, value in points}
    if len(points) < FEWEST_TRIALS or len(names) < 2 or len(values) < 2:
        return []
    distributions = {name: _distribution([p[name] for p, _ in points]) for name in names}
    source, fits = random.Random(0), []
    for _ in range(DRAWS):
        drawn = source.choices(points, k=min(len(points), MOST_TRIALS))
        if len({value for _, value in drawn}) > 1:
            fits.append(_fit(drawn, distributions))
    rows = [_row(name, [fit[name] for fit in fits]) for name in names]
    return sorted(rows, key=lambda row: -row["mean"])


def _varied(points: Sequence[Point]) -> list[str]:
    if not points:
        return []
    common = [n for n in points[0][0] if all(n in parameters for parameters, _ in points)]
    return [n for n in common if len({_key(parameters[n]) for parameters, _ in points}) > 1]


def _key(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else repr(value)


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) == len(values) and all(map(math.isfinite, numbers)):
        low, high = float(min(numbers)), float(max(numbers))
        return FloatDistribution(low, high, log=low > 0 and high / low >= _LOGARITHMIC)
    return CategoricalDistribution(sorted({str(_key(value)) for value in values}))


def _fit(
    points: Sequence[Point], distributions: Mapping[str, BaseDistribution]
) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for parameters, value in points:
        given = {
            name: float(parameters[name]) if hasattr(kind, "low") else str(_key(parameters[name]))
            for name, kind in distributions.items()
        }
        trial = optuna.trial.create_trial(
            params=given, distributions=dict(distributions), value=value
        )
        study.add_trial(trial)
    evaluator = FanovaImportanceEvaluator(n_trees=_TREES, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = get_param_importances(study, evaluator=evaluator)
    return {name: float(fits.get(name, 0.0)) for name in distributions}


def _row(name: str, fits: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(fits)
    edge = len(ordered) // 10
    return {
        "name": name,
        "mean": statistics.fmean(ordered),
        "low": ordered[edge],
        "high": ordered[-1 - edge],
    }
