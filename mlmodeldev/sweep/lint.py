"""Look for mistakes in a sweep file, those that would only show after hours in a queue as well.

Example::

    for problem in check("sweep/config.yaml", {"optimizer.lr": float}):
        print(problem)
    # sweep/config.yaml:9: error: parameters.optimizer.lrr: no setting of the trainer; did you ...

What is written here holds for all engines: a file without errors runs on the W&B server, by
enumeration, by search and on a laptop, with the same values.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterator
from pathlib import Path

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.sweep.definition import Definition, parse
from mlmodeldev.sweep.distributions import quantise
from mlmodeldev.sweep.document import Document, Problem
from mlmodeldev.sweep.lint_command import check_command
from mlmodeldev.sweep.lint_settings import (
    TrainerSettings,
    Unset,
    check_mandatory,
    check_settings,
    points,
)
from mlmodeldev.sweep.loading import MAX_LISTED, Sweep
from mlmodeldev.sweep.parameters import EXPONENTS, Parameter, distinct
from mlmodeldev.sweep.yaml_reader import read_file

TRAINER_METRICS = ("train/loss", "val/loss", "val/accuracy", "val/matthews")
"""What the shipped models log."""

CKA_METRICS = "cka/"
"""How the names of what `callbacks.cka` logs begin."""

HEADER = {"command": "Command:", "best": "Expected best value:", "cost": "Cost:"}
"""Words that the comment lines at the top of a sweep file must hold, and how to write them."""


def check(
    path: str | Path,
    settings: TrainerSettings | None = None,
    metrics: Collection[str] = TRAINER_METRICS,
) -> list[Problem]:
    """Return all problems of a sweep file, in the order of its lines; empty if there are none.

    Args:
        path: the sweep file.
        settings: the trainer's settings: a mapping of dotted keys to a type or to a default
            value (None for any type), or a function that takes a key, a value and the choices of
            files beside them (``model=text_classifier``) and returns what is wrong, or None.
            Without it keys and types are not checked.
        metrics: names that the trainer logs.
    """
    document = Document(str(path))
    try:
        read_file(path, document)
        definition = parse(document)
    except UsageError:
        return document.problems
    if document.errors:
        return sorted(document.problems, key=lambda problem: problem.line)
    return check_loaded(Sweep(definition, document), settings, metrics)


def check_loaded(
    sweep: Sweep,
    settings: TrainerSettings | None = None,
    metrics: Collection[str] = TRAINER_METRICS,
    unset: Unset | None = None,
) -> list[Problem]:
    """Return all problems of a sweep that was loaded from a file, as `check` does.

    Args:
        sweep: the sweep.
        settings: the trainer's, and
        metrics: what it logs, as `check` takes them.
        unset: tells what is mandatory; None: nothing is.
    """
    document, definition = sweep.document, sweep.definition
    assert document is not None
    _check_header(document)
    _check_values(document, definition)
    _check_end(document, definition)
    check_command(document, definition)
    foreign = sweep.invocation.is_foreign  # of whose names and types we know none
    if not foreign:
        _check_metric(document, definition, metrics)
    if _check_points(document, sweep) and settings is not None and not foreign:
        check_settings(document, definition, settings)
        if unset is not None and not document.errors:
            check_mandatory(document, definition, unset)
    return sorted(document.problems, key=lambda problem: problem.line)


def _check_header(document: Document) -> None:
    """Warn where the comment lines at the top do not say what the sweep costs and brings."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), document.source.splitlines())
    comments = " ".join(lines).lower()
    missing = [f"'# {name}'" for word, name in HEADER.items() if word not in comments]
    if missing:
        message = f"should open with comment lines, missing here: {', '.join(missing)}"
        document.warning((), message, 1)


def _check_values(document: Document, definition: Definition) -> None:
    """Warn of values that are probably not meant."""
    for parameter in definition.parameters:
        for message in _value_warnings(parameter, definition.method):
            document.warning(parameter.keys, message)


def _value_warnings(parameter: Parameter, method: str) -> Iterator[str]:
    fields, distribution = parameter.fields, parameter.distribution
    if distribution == "categorical" and len(distinct(fields["values"])) < len(fields["values"]):
        yield "lists a value twice (1 and 1.0 are one value); it counts once in a grid"
    if distribution in EXPONENTS:
        instead = f"{distribution}_values"
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


def _check_end(document: Document, definition: Definition) -> None:
    """Warn of what never ends, and of seeds that are searched like a setting."""
    if definition.method == "grid":
        size = Sweep(definition).space.product()
        if size > MAX_LISTED and definition.run_cap is None:
            message = f"missing: of {size:,} points at most {MAX_LISTED:,} are listed without it"
            document.warning(("run_cap",), message, document.line(("method",)))
        return
    if definition.run_cap is None:
        message = f"missing: {definition.method} has no end without it"
        document.warning(("run_cap",), message, document.line(("method",)))
    for parameter in definition.parameters:
        seed = parameter.name.rpartition(".")[2] == "seed"
        if seed and not parameter.is_constant and parameter.name not in definition.replicates:
            message = "is drawn like any parameter; to repeat each point: controller.replicates"
            document.warning(parameter.keys, message)


def _check_metric(document: Document, definition: Definition, metrics: Collection[str]) -> None:
    """Warn of a metric that only the user's own model can log."""
    if definition.metric is None:
        return
    name = definition.metric.name
    if name in metrics or name.startswith(CKA_METRICS):
        return
    close = difflib.get_close_matches(name, list(metrics), n=1, cutoff=0.7)
    hint = nearest(name, close) or "; a search or early stopping needs it logged"
    listed = ", ".join(sorted(metrics))
    message = f"{name!r} must be logged by your model; the shipped ones log {listed}{hint}"
    document.warning(("metric", "name"), message)


def _check_points(document: Document, sweep: Sweep) -> bool:
    """Report rules that cannot be worked out, or that no point fits; return whether all is well."""
    some = 20 if sweep.space.rules.any else 1
    try:
        first = list(itertools.islice(points(sweep.definition), some))
    except UsageError as error:
        document.error(("controller",), str(error))
        return False
    if not first:
        document.error(("controller", "constraints"), "no point fits")
    return bool(first)
