"""The parameters of a sweep: how each one's values are given, checked against W&B's schema.

Example::

    optimizer.lr: {values: [0.001, 0.003]}                 # categorical
    model.hidden_size: {min: 32, max: 256}                       # int_uniform, inferred as W&B does
    optimizer.weight_decay: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
    optimizer: {parameters: {lr: {value: 0.1}}}            # nested: the key is optimizer.lr

Source of the fields and defaults: the schema of W&B's `sweeps` 0.3.0 and the client 0.31.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlmodeldev.errors import nearest
from mlmodeldev.settings.identity import canonical_text
from mlmodeldev.sweep.document import Document, Keys, Report, dotted, shown

_BOUNDS = ("min", "max")
_NORMAL = ("mu", "sigma")

FIELDS: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "constant": (("value",), {}),
    "categorical": (("values",), {}),
    "int_uniform": (_BOUNDS, {}),
    "uniform": (_BOUNDS, {}),
    "q_uniform": (_BOUNDS, {"q": 1}),
    "log_uniform": (_BOUNDS, {}),
    "log_uniform_values": (_BOUNDS, {}),
    "q_log_uniform": (_BOUNDS, {"q": 1}),
    "q_log_uniform_values": (_BOUNDS, {"q": 1}),
    "inv_log_uniform": (_BOUNDS, {}),
    "inv_log_uniform_values": (_BOUNDS, {}),
    "normal": ((), {"mu": 0.0, "sigma": 1.0}),
    "q_normal": ((), {"mu": 0.0, "sigma": 1.0, "q": 1}),
    "log_normal": ((), {"mu": 0.0, "sigma": 1.0}),
    "q_log_normal": ((), {"mu": 0.0, "sigma": 1.0, "q": 1}),
    "beta": ((), {"a": 1.0, "b": 1.0}),
    "q_beta": ((), {"a": 1.0, "b": 1.0, "q": 1}),
}
"""Each distribution's required fields, and its optional ones with their defaults."""

GRID = ("constant", "categorical", "int_uniform", "q_uniform")
"""Distributions with countable values, which method grid accepts."""

_EXPONENTS = {"log_uniform", "q_log_uniform", "inv_log_uniform"}
_POSITIVE = {"log_uniform_values", "q_log_uniform_values", "inv_log_uniform_values"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_MAX_EXPONENT = 700  # exp(700) is just below the largest float


@dataclass(frozen=True)
class Parameter:
    """One parameter: its dotted key, its distribution and that distribution's fields."""

    name: str
    distribution: str
    fields: dict[str, Any] = field(default_factory=dict)
    """The fields with defaults filled in, such as ``{"min": 0.0, "max": 1.0}``."""
    line: int = 1
    place: str = ""

    @property
    def is_constant(self) -> bool:
        """True if there is one value only, given as ``value``."""
        return self.distribution == "constant"


def parse_parameters(document: Document, report: Report) -> list[Parameter]:
    """Return the parameters of a sweep file in its order; mistakes go into the report."""
    data, keys = document.data.get("parameters"), ("parameters",)
    if not isinstance(data, dict) or not data:
        report.error(document.line(keys), "parameters", "must be a mapping with a parameter in it")
        return []
    found: list[Parameter] = []
    seen: dict[str, int] = {}
    for parameter in _walk(data, "", keys, document, report):
        if parameter.name in seen:
            message = f"{parameter.name} is set twice, first in line {seen[parameter.name]}"
            report.error(parameter.line, parameter.place, message)
            continue
        seen[parameter.name] = parameter.line
        found.append(parameter)
    _report_overlaps(found, report)
    return found


def _walk(
    data: dict[str, Any], prefix: str, keys: Keys, document: Document, report: Report
) -> Iterator[Parameter]:
    for name, spec in data.items():
        here, line = (*keys, name), document.line((*keys, name))
        full = f"{prefix}{name}"
        if not _NAME.fullmatch(name):
            report.error(line, dotted(here), _name_message(name))
        elif not isinstance(spec, dict):
            report.error(line, dotted(here), "must be a mapping, such as {value: 1}")
        elif "parameters" in spec:
            yield from _nested(spec, full, here, document, report)
        else:
            parameter = _parse_one(full, spec, here, document, report)
            if parameter is not None:
                yield parameter


def _name_message(name: str) -> str:
    hint = " (use ${args_append_hydra} in command)" if name.startswith("+") else ""
    return f"{shown(name)} is no parameter name: letters, digits, '_', '-' and '.' only{hint}"


def _nested(
    spec: dict[str, Any], full: str, here: Keys, document: Document, report: Report
) -> Iterator[Parameter]:
    inner, keys = spec["parameters"], (*here, "parameters")
    for extra in spec.keys() - {"parameters"}:
        message = "not allowed beside 'parameters'"
        report.error(document.line((*here, extra)), dotted((*here, extra)), message)
    if isinstance(inner, dict) and inner:
        yield from _walk(inner, f"{full}.", keys, document, report)
    else:
        report.error(document.line(keys), dotted(keys), "must be a mapping with a parameter in it")


def _parse_one(
    name: str, spec: dict[str, Any], keys: Keys, document: Document, report: Report
) -> Parameter | None:
    before = len(report.errors)
    line = document.line(keys)
    distribution = _distribution(spec, keys, document, report)
    if distribution is None:
        return None
    required, optional = FIELDS[distribution]
    allowed = ["distribution", *required, *optional]
    if distribution == "categorical":
        allowed.append("probabilities")
    for extra in spec:
        if extra not in allowed:
            message = f"not a field of {distribution}; allowed: {', '.join(allowed)}"
            message += nearest(extra, allowed)
            report.error(document.line((*keys, extra)), dotted((*keys, extra)), message)
    for missing in required:
        if missing not in spec:
            report.error(line, dotted(keys), f"{distribution} needs {missing!r}")
    fields = {**optional, **{k: v for k, v in spec.items() if k in allowed[1:]}}
    parameter = Parameter(name, distribution, fields, line, dotted(keys))
    if len(report.errors) == before:
        _check_fields(parameter, report)
    return parameter if len(report.errors) == before else None


def _distribution(
    spec: dict[str, Any], keys: Keys, document: Document, report: Report
) -> str | None:
    given = spec.get("distribution")
    if "distribution" in spec:
        if given == "categorical_w_probabilities":
            return "categorical"
        if isinstance(given, str) and given in FIELDS:
            return given
        line = document.line((*keys, "distribution"))
        message = (
            f"{shown(given)} is unknown{nearest(str(given), FIELDS)}; known: {', '.join(FIELDS)}"
        )
        report.error(line, dotted((*keys, "distribution")), message)
        return None
    if "value" in spec and "values" not in spec:
        return "constant"
    if "values" in spec:
        return "categorical"
    return _infer_from_bounds(spec, keys, document, report)


def _infer_from_bounds(
    spec: dict[str, Any], keys: Keys, document: Document, report: Report
) -> str | None:
    line, low, high = document.line(keys), spec.get("min"), spec.get("max")
    if "min" not in spec or "max" not in spec:
        fields = ["value", "values", "min", "max", "distribution", "parameters"]
        close = next((nearest(key, fields) for key in spec if key not in fields), "")
        message = f"needs one of: value; values; min and max; distribution; parameters{close}"
        report.error(line, dotted(keys), message)
        return None
    if _is_int(low) and _is_int(high):
        return "int_uniform"
    if isinstance(low, float) and isinstance(high, float):
        return "uniform"
    if _is_number(low) and _is_number(high):
        message = f"min {low} and max {high}: write both as integers or both with a decimal point"
    else:
        message = f"min {shown(low)} and max {shown(high)} must be numbers"
    report.error(line, dotted(keys), message)
    return None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _check_fields(parameter: Parameter, report: Report) -> None:
    for message in _field_mistakes(parameter):
        report.error(parameter.line, parameter.place, message)


def _field_mistakes(parameter: Parameter) -> Iterator[str]:
    fields = parameter.fields
    if parameter.distribution == "constant":
        return
    if parameter.distribution == "categorical":
        yield from _categorical_mistakes(fields)
        return
    wrong = [
        f"{k} {shown(v)} must be a finite number" for k, v in fields.items() if not _is_number(v)
    ]
    if wrong:
        yield from wrong
        return
    if max(abs(value) for value in fields.values()) > 1e300:
        yield "numbers beyond 1e300 are not supported"
        return
    yield from _number_mistakes(parameter.distribution, fields)


def _number_mistakes(distribution: str, fields: dict[str, Any]) -> Iterator[str]:
    low, high = fields.get("min", 0), fields.get("max", 1)
    if low >= high:
        yield f"min {shown(low)} must be less than max {shown(high)}"
    if distribution == "int_uniform" and not (_is_int(low) and _is_int(high)):
        yield f"int_uniform needs integers, not min {low} and max {high}"
    if distribution in _POSITIVE and low <= 0:
        yield f"min {low} must be greater than 0 on a log scale"
    if distribution in _EXPONENTS and max(abs(low), abs(high)) > _MAX_EXPONENT:
        yield f"min and max are exponents of e here, at most {_MAX_EXPONENT}"
    if fields.get("q", 1) <= 0:
        yield f"q {fields['q']} must be greater than 0"
    if fields.get("sigma", 1) < 0:
        yield f"sigma {fields['sigma']} must not be negative"
    if fields.get("a", 1) <= 0 or fields.get("b", 1) <= 0:
        yield f"a {fields['a']} and b {fields['b']} must be greater than 0"


def _categorical_mistakes(fields: dict[str, Any]) -> Iterator[str]:
    values = fields["values"]
    if not isinstance(values, list) or not values:
        yield "values must be a list with a value in it"
        return
    if "probabilities" not in fields:
        return
    chances = fields["probabilities"]
    if not isinstance(chances, list) or not all(_is_number(p) and 0 <= p <= 1 for p in chances):
        yield "probabilities must be a list of numbers from 0 to 1"
    elif len(chances) != len(values):
        yield f"{len(chances)} probabilities for {len(values)} values: one for each is needed"
    elif not math.isclose(math.fsum(chances), 1.0, rel_tol=1e-5, abs_tol=1e-8):
        yield f"probabilities sum to {math.fsum(chances):.6g}, not to 1"


def distinct(values: list[Any]) -> list[Any]:
    """Return the values without repetitions, in order; ``1`` and ``1.0`` are one value."""
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(canonical_text(value), value)
    return list(seen.values())


def _report_overlaps(parameters: list[Parameter], report: Report) -> None:
    # A text may stand above other keys: `model: resnet` chooses a group, `model.size` a field.
    names = {parameter.name for parameter in parameters}
    for parameter in parameters:
        values = parameter.fields.get("values", [parameter.fields.get("value")])
        for key in {key for value in values for key in _inner_keys(parameter.name, value)} & names:
            message = f"sets {key}, which is a parameter of its own"
            report.error(parameter.line, parameter.place, message)


def _inner_keys(prefix: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{prefix}.{name}"
            yield from _inner_keys(f"{prefix}.{name}", inner)
