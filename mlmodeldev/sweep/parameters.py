"""The parameters of a sweep: how each one's values are given, checked against W&B's schema.

Example::

    optimizer.lr: {values: [0.001, 0.003]}                 # categorical
    model.hidden_size: {min: 32, max: 256}                 # int_uniform, inferred as W&B does
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
from mlmodeldev.sweep.document import Document, Keys, shown

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

EXPONENTS = {"log_uniform", "q_log_uniform", "inv_log_uniform"}
"""Distributions whose bounds are exponents of e; the same with ``_values`` take the bounds."""
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
    keys: Keys = ()
    """Where it stands in the file."""

    @property
    def path(self) -> tuple[str, ...]:
        """Its names in the file, from the outermost; empty of a setting that the command gives."""
        return tuple(map(str, self.keys[1::2])) if self.keys[:1] == ("parameters",) else ()

    @property
    def is_constant(self) -> bool:
        """True if there is one value only, given as ``value``."""
        return self.distribution == "constant"


def parse_parameters(document: Document) -> list[Parameter]:
    """Return the parameters of a sweep file in its order; mistakes are noted in the document."""
    data, keys = document.data.get("parameters"), ("parameters",)
    if not isinstance(data, dict) or not data:
        document.error(keys, "must be a mapping with a parameter in it")
        return []
    by_name: dict[str, Parameter] = {}
    for parameter in _walk(data, "", keys, document):
        first = by_name.setdefault(parameter.name, parameter)
        if first is not parameter:
            line = document.line(first.keys)
            message = f"{parameter.name} is set twice, first in line {line}"
            document.error(parameter.keys, message)
    parameters = list(by_name.values())
    _report_overlaps(parameters, document)
    return parameters


def _walk(data: dict[str, Any], prefix: str, keys: Keys, document: Document) -> Iterator[Parameter]:
    for name, spec in data.items():
        here, full = (*keys, name), f"{prefix}{name}"
        if not _NAME.fullmatch(name):
            document.error(here, _name_message(name))
        elif not isinstance(spec, dict):
            document.error(here, "must be a mapping, such as {value: 1}")
        elif "parameters" in spec:
            yield from _nested(spec, full, here, document)
        else:
            parameter = _parse_one(full, spec, here, document)
            if parameter is not None:
                yield parameter


def _name_message(name: str) -> str:
    hint = " (use ${args_append_hydra} in command)" if name.startswith("+") else ""
    return f"{shown(name)} is no parameter name: letters, digits, '_', '-' and '.' only{hint}"


def _nested(spec: dict[str, Any], full: str, here: Keys, document: Document) -> Iterator[Parameter]:
    inner, keys = spec["parameters"], (*here, "parameters")
    for extra in spec.keys() - {"parameters"}:
        document.error((*here, extra), "not allowed beside 'parameters'")
    if isinstance(inner, dict) and inner:
        yield from _walk(inner, f"{full}.", keys, document)
    else:
        document.error(keys, "must be a mapping with a parameter in it")


def _parse_one(name: str, spec: dict[str, Any], keys: Keys, document: Document) -> Parameter | None:
    before = len(document.problems)
    distribution = _distribution(spec, keys, document)
    if distribution is None:
        return None
    required, optional = FIELDS[distribution]
    _report_texts(spec, keys, document)
    allowed = ["distribution", *required, *optional]
    if distribution == "categorical":
        allowed.append("probabilities")
    for extra in spec:
        if extra not in allowed:
            message = f"not a field of {distribution}; allowed: {', '.join(allowed)}"
            document.error((*keys, extra), message + nearest(extra, allowed))
    for missing in required:
        if missing not in spec:
            document.error(keys, f"{distribution} needs {missing!r}")
    fields = {**optional, **{k: v for k, v in spec.items() if k in allowed[1:]}}
    parameter = Parameter(name, distribution, fields, keys)
    if len(document.problems) == before:
        for message in _field_mistakes(parameter):
            document.error(keys, message)
    return parameter if len(document.problems) == before else None


def _report_texts(spec: dict[str, Any], keys: Keys, document: Document) -> None:
    """Report fields that need numbers and have texts such as ``1e-5``, each once."""
    places: list[Keys] = [(*keys, each) for each in spec if each not in ("value", "values")]
    if isinstance(chances := spec.get("probabilities"), list):
        places += [(*keys, "probabilities", i) for i in range(len(chances))]
    for place in places:
        if place in document.number_like:
            document.error(place, document.no_number(place, "must be a number"))


def _distribution(spec: dict[str, Any], keys: Keys, document: Document) -> str | None:
    if "distribution" in spec:
        given = spec["distribution"]
        if given == "categorical_w_probabilities":
            if "probabilities" not in spec:
                message = "categorical_w_probabilities needs 'probabilities', one for each value"
                document.error(keys, message)
            return "categorical"
        if given == "categorical" and "probabilities" in spec:
            message = "W&B takes none with categorical: drop 'distribution', or name"
            document.error((*keys, "probabilities"), f"{message} categorical_w_probabilities")
        if isinstance(given, str) and given in FIELDS:
            return given
        hint = nearest(str(given), FIELDS)
        message = f"{shown(given)} is unknown{hint}; allowed: {', '.join(FIELDS)}"
        document.error((*keys, "distribution"), message)
        return None
    if "values" in spec:
        return "categorical"
    if "value" in spec:
        return "constant"
    return _infer_from_bounds(spec, keys, document)


def _infer_from_bounds(spec: dict[str, Any], keys: Keys, document: Document) -> str | None:
    low, high = spec.get("min"), spec.get("max")
    if "min" not in spec or "max" not in spec:
        fields = ["value", "values", "min", "max", "distribution", "parameters"]
        close = next((nearest(key, fields) for key in spec if key not in fields), "")
        message = f"needs one of: value; values; min and max; distribution; parameters{close}"
    elif {(*keys, "min"), (*keys, "max")} & document.number_like.keys():
        return "uniform"  # as was meant; whoever takes its fields says what is wrong with them
    elif _is_int(low) and _is_int(high):
        return "int_uniform"
    elif isinstance(low, float) and isinstance(high, float):
        return "uniform"
    elif _is_number(low) and _is_number(high):
        message = f"min {low} and max {high}: write both as integers or both with a decimal point"
    else:
        message = f"min {shown(low)} and max {shown(high)} must be numbers"
    document.error(keys, message)
    return None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


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
    if distribution in EXPONENTS and max(abs(low), abs(high)) > _MAX_EXPONENT:
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
    if all(type(value) in (int, str) for value in values):
        return list(dict.fromkeys(values))  # of one spelling each
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(canonical_text(value), value)
    return list(seen.values())


def _report_overlaps(parameters: list[Parameter], document: Document) -> None:
    # A text may stand above other keys: `model: resnet` chooses a group, `model.size` a field.
    names = {parameter.name for parameter in parameters}
    for parameter in parameters:
        values = parameter.fields.get("values", [parameter.fields.get("value")])
        for key in {key for value in values for key in _inner_keys(parameter.name, value)} & names:
            document.error(parameter.keys, f"sets {key}, which is a parameter of its own")


def _inner_keys(prefix: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{prefix}.{name}"
            yield from _inner_keys(f"{prefix}.{name}", inner)
