"""W&B's distributions by their inverse: a number u in (0, 1) becomes a parameter's value.

Example::

    parameter = Parameter("lr", "log_uniform_values", {"min": 1e-4, "max": 1e-2})
    quantile(parameter, 0.5)     # 0.001

The same u gives the same value on every machine: exponentials, logarithms and the normal
quantile are worked out to 30 decimal digits, where a C library's last bit differs from machine
to machine. Beta, for which there is scipy alone, is rounded to 10 digits instead. Source of the
formulas: `sweeps` 0.3.0, which W&B's server runs.
"""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.sweep.parameters import Parameter

_EXACT = Context(prec=30, rounding=ROUND_HALF_EVEN, Emax=10**6, Emin=-(10**6))
_COUNTABLE = 2.0**53


def quantile(parameter: Parameter, u: float) -> Any:
    """Return the parameter's value at the quantile u, 0 < u < 1.

    Quantised distributions give integers where ``q`` is integral, else floats; bounds hold, but
    a quantised value may lie up to q/2 outside of them, as on W&B.

    Raises:
        UsageError: the value is too large for a float (a normal exponent in the hundreds).
    """
    fields = parameter.fields
    if parameter.distribution == "constant":
        return fields["value"]
    if parameter.distribution == "categorical":
        return fields["values"][_category(fields, u)]
    if parameter.distribution == "int_uniform":
        size = fields["max"] - fields["min"] + 1
        return fields["min"] + min(int(u * size), size - 1)
    value = _CONTINUOUS[parameter.distribution.removeprefix("q_")](fields, u)
    if value - value != 0:
        raise UsageError(f"{parameter.name}: {parameter.distribution} gives values beyond 1e308")
    return quantise(value, fields["q"]) if "q" in fields else value


def quantise(value: float, q: float) -> int | float:
    """Return the multiple of q nearest to the value; an integer if q is one."""
    if abs(value / q) > _COUNTABLE:
        return value  # the steps are finer than a float's own
    steps = round(value / q)
    return steps * int(q) if float(q).is_integer() else steps * q


def _category(fields: dict[str, Any], u: float) -> int:
    if "probabilities" not in fields:
        return int(u * len(fields["values"]))
    cumulative = list(itertools.accumulate(fields["probabilities"]))
    index = bisect.bisect_right(cumulative, u * cumulative[-1])
    return min(index, len(cumulative) - 1)


def _uniform(fields: dict[str, Any], u: float) -> float:
    low, high = float(fields["min"]), float(fields["max"])
    return min(low + u * (high - low), high)


def _between_exponents(low: Decimal, high: Decimal, u: float) -> float:
    exponent = _EXACT.add(low, _EXACT.multiply(Decimal(u), _EXACT.subtract(high, low)))
    return float(_EXACT.exp(exponent))


def _log_uniform(fields: dict[str, Any], u: float) -> float:
    return _between_exponents(Decimal(fields["min"]), Decimal(fields["max"]), u)


def _inv_log_uniform(fields: dict[str, Any], u: float) -> float:
    return _between_exponents(-Decimal(fields["max"]), -Decimal(fields["min"]), u)


def _log_uniform_values(fields: dict[str, Any], u: float) -> float:
    # Log-uniform in x is log-uniform in 1/x, so the inverse distribution is this one, too.
    low, high = (_EXACT.ln(Decimal(fields[bound])) for bound in ("min", "max"))
    value = _between_exponents(low, high, u)
    return min(max(value, float(fields["min"])), float(fields["max"]))


def _normal(fields: dict[str, Any], u: float) -> float:
    return float(_normal_exact(fields, u))


def _log_normal(fields: dict[str, Any], u: float) -> float:
    exponent = _normal_exact(fields, u)
    return float(_EXACT.exp(exponent)) if exponent < 800 else float("inf")


def _normal_exact(fields: dict[str, Any], u: float) -> Decimal:
    deviation = _EXACT.multiply(Decimal(fields["sigma"]), _standard_normal(u))
    return _EXACT.add(Decimal(fields["mu"]), deviation)


def _standard_normal(u: float) -> Decimal:
    """Return the standard normal quantile: the library's value after one exact Newton step."""
    # Where the tail is thin, 1 - u is exact and its mirror image loses no digits.
    if u > 0.5:
        return -_standard_normal(1.0 - u)
    start = Decimal(statistics.NormalDist().inv_cdf(u))
    half_square = _EXACT.multiply(_EXACT.multiply(start, start), Decimal("0.5"))
    density = _EXACT.divide(_EXACT.exp(-half_square), _ROOT_TWO_PI)
    surplus = _EXACT.subtract(_normal_cdf(start, density), Decimal(u))
    return _EXACT.subtract(start, _EXACT.divide(surplus, density))


_ROOT_TWO_PI = Decimal("2.50662827463100050241576528481")


def _normal_cdf(x: Decimal, density: Decimal) -> Decimal:
    """Return Φ(x) = 1/2 + φ(x)·(x + x³/3 + x⁵/(3·5) + …), for any x that a draw can reach."""
    wide = Context(prec=60)
    term = total = x
    square = wide.multiply(x, x)
    for odd in itertools.count(3, 2):
        term = wide.divide(wide.multiply(term, square), Decimal(odd))
        total = wide.add(total, term)
        if abs(term) < Decimal("1e-45") * max(abs(total), Decimal("1e-30")):
            break
    return wide.add(Decimal("0.5"), wide.multiply(density, total))


def _beta(fields: dict[str, Any], u: float) -> float:
    from scipy.special import betaincinv

    value = float(betaincinv(float(fields["a"]), float(fields["b"]), u))
    return float(f"{value:.9e}")  # the digits on which all releases of scipy agree


_CONTINUOUS: dict[str, Callable[[dict[str, Any], float], float]] = {
    "uniform": _uniform,
    "log_uniform": _log_uniform,
    "log_uniform_values": _log_uniform_values,
    "inv_log_uniform": _inv_log_uniform,
    "inv_log_uniform_values": _log_uniform_values,
    "normal": _normal,
    "log_normal": _log_normal,
    "beta": _beta,
}
