"""Traps in the values of a sweep file that are not wrong, but probably not meant.

Example: one value listed twice; bounds of ``log_uniform`` that are exponents; a grid over
``q_uniform`` that leaves its upper bound out; a random search without an end.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlmodeldev.sweep.definition import Definition
from mlmodeldev.sweep.distributions import quantise
from mlmodeldev.sweep.document import Document
from mlmodeldev.sweep.parameters import Parameter, distinct
from mlmodeldev.sweep.problem import Report

HEADER = ("command", "best", "cost")
"""Words that the comment lines at the top of a sweep file must hold."""

_EXPONENTS = {
    "log_uniform": "log_uniform_values",
    "q_log_uniform": "q_log_uniform_values",
    "inv_log_uniform": "inv_log_uniform_values",
}


def check_header(document: Document, report: Report) -> None:
    """Warn where the comment lines at the top do not say what the sweep costs and brings."""
    comments = []
    for line in document.text.splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.lower())
    missing = [word for word in HEADER if word not in " ".join(comments)]
    if missing:
        names = {"command": "Command:", "best": "Expected best value:", "cost": "Cost:"}
        wanted = ", ".join(f"'# {names[word]}'" for word in missing)
        report.warning(1, "", f"should open with comment lines, missing here: {wanted}")


def check_values(definition: Definition, report: Report) -> None:
    """Warn of values that are probably not meant."""
    for parameter in definition.parameters:
        for message in _value_warnings(parameter, definition.method):
            report.warning(parameter.line, parameter.place, message)


def _value_warnings(parameter: Parameter, method: str) -> Iterator[str]:
    fields, distribution = parameter.fields, parameter.distribution
    if distribution == "categorical" and len(distinct(fields["values"])) < len(fields["values"]):
        yield "lists a value twice (1 and 1.0 are one value); it counts once in a grid"
    if distribution in _EXPONENTS:
        instead = _EXPONENTS[distribution]
        yield f"min and max are exponents of e in {distribution}; {instead} takes the bounds"
    if distribution == "q_uniform":
        yield from _step_warnings(parameter, method)


def _step_warnings(parameter: Parameter, method: str) -> Iterator[str]:
    low, high, q = (parameter.fields[name] for name in ("min", "max", "q"))
    if method == "grid":
        steps = (high - low) / q
        if abs(steps - round(steps)) < 1e-9:
            yield f"a grid over q_uniform leaves out max {high}, as W&B does: list 'values' for it"
    elif quantise(low, q) < low or quantise(high, q) > high:
        yield f"draws are multiples of q {q}, so {quantise(low, q)} to {quantise(high, q)}"


def check_end(document: Document, definition: Definition, report: Report) -> None:
    """Warn of a search that never ends, and of seeds that are searched like a setting."""
    if definition.method == "grid":
        return
    if definition.run_cap is None:
        line = document.line(("method",))
        report.warning(line, "run_cap", f"missing: {definition.method} has no end without it")
    for parameter in definition.parameters:
        seed = parameter.name.rpartition(".")[2] == "seed"
        if seed and not parameter.is_constant and parameter.name not in definition.replicates:
            message = "is drawn like any parameter; to repeat each point: controller.replicates"
            report.warning(parameter.line, parameter.place, message)
