"""Look for mistakes in a sweep file, those that would only show after hours in a queue as well.

Example::

    for problem in check("sweep/config.yaml", known_settings={"optimizer.lr": float}):
        print(problem)
    # sweep/config.yaml:9: error: parameters.optimizer.lrr: no setting of the trainer; did you ...

What is written here holds for all engines: a file without errors runs on the W&B server, by
enumeration, by search and on a laptop, with the same values.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.sweep import lint_trainer
from mlmodeldev.sweep.definition import Definition, parse
from mlmodeldev.sweep.distributions import quantise
from mlmodeldev.sweep.document import Document, Problem, Report, read
from mlmodeldev.sweep.loading import Sweep
from mlmodeldev.sweep.parameters import Parameter, distinct

TRAINER_METRICS = ("train/loss", "val/loss", "val/accuracy")
"""What every trainer of this template logs."""

KnownSettings = Mapping[str, Any] | lint_trainer.Ask


def check(
    path: str | Path,
    known_settings: KnownSettings | None = None,
    known_metrics: Collection[str] | None = None,
) -> list[Problem]:
    """Return all problems of a sweep file, in the order of its lines; empty if there are none.

    Args:
        path: the sweep file.
        known_settings: the trainer's settings: a mapping of dotted keys to a type or to a default
            value (None for any type), or a function that takes a key, a value and the choices of
            files beside them (``model=text_classifier``) and returns what is wrong, or None.
            Without it keys and types are not checked.
        known_metrics: names that the trainer logs; `TRAINER_METRICS` by default.
    """
    report = Report(str(path))
    try:
        document = read(path, report)
        definition = parse(document, report)
    except UsageError:
        return report.problems
    if not report.errors:
        _lint(document, definition, report, known_settings, known_metrics)
    return sorted(report.problems, key=lambda problem: problem.line)


def _lint(
    document: Document,
    definition: Definition,
    report: Report,
    known_settings: KnownSettings | None,
    known_metrics: Collection[str] | None,
) -> None:
    check_header(document, report)
    check_values(definition, report)
    check_end(document, definition, report)
    lint_trainer.check_command(document, definition, report)
    metrics = TRAINER_METRICS if known_metrics is None else known_metrics
    lint_trainer.check_metric(document, definition, metrics, report)
    if _check_points(document, definition, report) and known_settings is not None:
        lint_trainer.check_settings(definition, known_settings, report, _points(definition))


def _points(definition: Definition) -> Iterator[dict[str, Any]]:
    space = Sweep(definition).space
    return space.walk() if definition.method == "grid" else space.draw()


def _check_points(document: Document, definition: Definition, report: Report) -> bool:
    """Report rules that cannot be worked out, or that no point fits; return whether all is well."""
    try:
        first = list(itertools.islice(_points(definition), 20))
    except UsageError as error:
        report.error(document.line(("controller",)), "controller", str(error))
        return False
    if not first:
        line = document.line(("controller", "constraints"))
        report.error(line, "controller.constraints", "no point fits")
    return bool(first)


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
