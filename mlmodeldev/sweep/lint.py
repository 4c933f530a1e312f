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
from mlmodeldev.sweep import lint_command, lint_settings, lint_values
from mlmodeldev.sweep.definition import Definition, parse
from mlmodeldev.sweep.document import Document, read
from mlmodeldev.sweep.loading import Sweep
from mlmodeldev.sweep.problem import Problem, Report

TRAINER_METRICS = ("train/loss", "val/loss", "val/accuracy")
"""What every trainer of this template logs."""

KnownSettings = Mapping[str, Any] | lint_settings.Ask


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
    lint_values.check_header(document, report)
    lint_values.check_values(definition, report)
    lint_values.check_end(document, definition, report)
    lint_command.check_command(document, definition, report)
    metrics = TRAINER_METRICS if known_metrics is None else known_metrics
    lint_settings.check_metric(document, definition, metrics, report)
    if _check_points(document, definition, report) and known_settings is not None:
        lint_settings.check_settings(definition, known_settings, report, _points(definition))


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
