"""A sweep's parameters as Optuna knows them: as they are where that is exact, else as quantiles.

Example::

    distribution(parameter)             # FloatDistribution(low=0.0001, high=0.1, log=True)
    to_value(parameter, 0.003)          # what Optuna suggested, as the trial's value
    to_param(parameter, 0.003)          # and back

Optuna has neither normal, beta nor inverse distributions, no probabilities, and rounds steps
differently from W&B. Those are searched as a quantile u in (0, 1), which W&B's inverse
distribution turns into the value (`mlmodeldev.sweep.distributions`): the marginals are exact, and
the search sees a smooth axis.
"""

from __future__ import annotations

import math
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mlmodeldev.settings.canonical import canonical_text
from mlmodeldev.sweep.distributions import quantile
from mlmodeldev.sweep.parameters import Parameter, distinct

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
        return max(abs(fields["min"]), abs(fields["max"])) < _EXACT_INTEGER
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
    return all(isinstance(each, int | float) and math.isfinite(each) for each in values) and not (
        any(isinstance(each, bool) for each in values)
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
        found = quantile(parameter, middle)
        if found > value or (not strict and found == value):
            high = middle
        else:
            low = middle
    return (low + high) / 2
