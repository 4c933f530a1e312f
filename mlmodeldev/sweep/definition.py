"""A sweep file's meaning: method, parameters, metric, stopping, and our additions, validated.

Example::

    report = Report("sweep/config.yaml")
    definition = parse(read("sweep/config.yaml", report), report)
    report.raise_errors()
    definition.method, definition.run_cap             # ('grid', None)

The file is a W&B sweep file; `docs/sweeps.md` describes it. Source of what is allowed: the schema
of `sweeps` 0.3.0 and the client 0.31.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import references, resolve_ties, says_where
from mlmodeldev.sweep.document import Document, Keys, Report, shown
from mlmodeldev.sweep.expression import Expression
from mlmodeldev.sweep.extensions import Extensions, Reader, parse_extensions
from mlmodeldev.sweep.grid import MAX_VALUES, count_of
from mlmodeldev.sweep.parameters import GRID, Parameter, parse_parameters

METHODS = ("grid", "random", "bayes")
TEXTS = ("program", "project", "entity", "name", "description")
TOP_LEVEL = (
    *("method", "parameters", "metric", "early_terminate", "run_cap", "command", "controller"),
    *TEXTS,
    # W&B's own, passed through: launch, the API's version and its scheduler.
    *("apiVersion", "kind", "job", "image_uri", "scheduler", "settings"),
)
_METRIC = ("name", "goal", "target", "impute", "impute_while_running")
_HYPERBAND = ("type", "min_iter", "max_iter", "s", "eta", "strict")


@dataclass(frozen=True)
class Metric:
    """What the sweep looks for."""

    name: str
    """As the trainer logs it, such as ``val/accuracy``."""
    goal: str = "minimize"
    """``minimize`` or ``maximize``."""
    target: float | None = None
    """The sweep is done once a trial reaches this value."""


@dataclass(frozen=True)
class Hyperband:
    """W&B's early stopping: at each band, trials below the best 1/eta stop.

    Bands are counted in logged rows of the metric. The defaults are those of W&B's schema.
    """

    min_iter: int | None = None
    max_iter: int | None = None
    s: float | None = None
    eta: float = 3.0
    strict: bool = True


@dataclass(frozen=True)
class Definition:
    """A validated sweep file."""

    file: str
    method: str
    parameters: tuple[Parameter, ...]
    metric: Metric | None = None
    early_terminate: Hyperband | None = None
    run_cap: int | None = None
    """At most this many trials in all."""
    command: tuple[str, ...] | None = None
    texts: dict[str, str] = field(default_factory=dict)
    """``program``, ``project``, ``entity``, ``name``, ``description``, where given."""
    extensions: Extensions = field(default_factory=Extensions)

    @property
    def constraints(self) -> tuple[Expression, ...]:
        """A point is a trial only where all of these hold."""
        return self.extensions.constraints

    @property
    def conditions(self) -> dict[str, Expression]:
        """A parameter is set only where its condition holds."""
        return self.extensions.conditions

    @property
    def replicates(self) -> tuple[str, ...]:
        """Parameters whose values repeat every point, such as ``training.seed``."""
        return self.extensions.replicates


def parse(document: Document, report: Report) -> Definition:
    """Return the meaning of a sweep file; mistakes go into the report.

    With errors in the report the definition is not to be used.

    Raises:
        UsageError: the file is no sweep at all.
    """
    data = document.data
    if not isinstance(data, dict) or not data.keys() & set(TOP_LEVEL):
        report.refuse(1, "is no sweep file: it needs 'method' and 'parameters'")
    reader = Reader(document, report)
    reader.only(data, (), TOP_LEVEL)
    parameters = parse_parameters(document, report)
    definition = Definition(
        file=document.file,
        method=reader.choice(data.get("method"), ("method",), METHODS) or "",
        parameters=tuple(parameters),
        metric=_metric(reader),
        early_terminate=_hyperband(reader),
        run_cap=reader.count(data.get("run_cap"), ("run_cap",)),
        command=_command(reader),
        texts={k: text for k in TEXTS if (text := reader.text(data.get(k), (k,))) is not None},
        extensions=parse_extensions(reader, parameters),
    )
    check_consistency(definition, reader)
    return definition


def _metric(reader: Reader) -> Metric | None:
    keys: Keys = ("metric",)
    data = reader.mapping(reader.document.data.get("metric"), keys, _METRIC)
    if data is None:
        return None
    name = reader.text(data.get("name"), (*keys, "name"))
    if not name:
        reader.error(keys, "needs a 'name', such as val/loss")
    goal = data.get("goal", "minimize")
    goal = reader.choice(goal, (*keys, "goal"), ("minimize", "maximize"))
    target = reader.number(data.get("target"), (*keys, "target"))
    return Metric(name or "", goal or "", target)


def _hyperband(reader: Reader) -> Hyperband | None:
    keys: Keys = ("early_terminate",)
    data = reader.mapping(reader.document.data.get("early_terminate"), keys, _HYPERBAND)
    if data is None:
        return None
    reader.choice(data.get("type"), (*keys, "type"), ("hyperband",))
    if "min_iter" not in data and not {"max_iter", "s"} <= data.keys():
        reader.error(keys, "needs 'min_iter', or 'max_iter' with 's'")
    if "min_iter" in data and "max_iter" in data:
        reader.error(keys, "takes 'min_iter' or 'max_iter', not both")
    eta = reader.number(data.get("eta", 3.0), (*keys, "eta"))
    if eta is not None and not 1 < eta < math.inf:
        reader.error((*keys, "eta"), f"{shown(eta)} must be greater than 1")
    strict = data.get("strict", True)
    if not isinstance(strict, bool):
        reader.error((*keys, "strict"), f"{shown(strict)} must be true or false")
    bands = reader.number(data.get("s"), (*keys, "s"))
    if bands is not None and not 0 < bands < math.inf:
        reader.error((*keys, "s"), f"{shown(bands)} must be greater than 0")
    first = reader.count(data.get("min_iter"), (*keys, "min_iter"))
    last = reader.count(data.get("max_iter"), (*keys, "max_iter"))
    return Hyperband(first, last, bands, eta or 3.0, bool(strict))


def _command(reader: Reader) -> tuple[str, ...] | None:
    value = reader.document.data.get("command")
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        reader.error(("command",), "must be a list, such as ['${env}', '${program}', '${args}']")
        return None
    for i, item in enumerate(value):
        if isinstance(item, dict | list) or item is None:
            reader.error(("command", i), f"{shown(item)} must be text")
    return tuple(str(item) for item in value)


def check_consistency(definition: Definition, reader: Reader) -> None:
    """Report what does not fit together in an otherwise readable sweep file."""
    if definition.method == "bayes" and definition.metric is None:
        reader.error(("method",), "bayes needs a 'metric' with a name and a goal")
    if definition.early_terminate and definition.metric is None:
        reader.error(("early_terminate",), "hyperband needs a 'metric' to compare trials by")
    for parameter in definition.parameters:
        message = _where_message(parameter)
        if message is None and definition.method == "grid":
            message = _grid_message(parameter)
        if message is not None:
            reader.report.error(parameter.line, parameter.place, message)
    _check_circles(definition, reader)


def _where_message(parameter: Parameter) -> str | None:
    if says_where(parameter.name) and not parameter.is_constant:
        return "says where a trial runs, not what it is: it can be set to a value, not swept"
    return None


def _grid_message(parameter: Parameter) -> str | None:
    if parameter.distribution not in GRID:
        return f"method grid cannot list {parameter.distribution}: give 'values'"
    if "probabilities" in parameter.fields:
        return "method grid has no use for probabilities, and W&B refuses them there"
    if count_of(parameter) > MAX_VALUES:
        return f"has more than {MAX_VALUES:.0e} values: give 'values', or a larger step 'q'"
    return None


def _check_circles(definition: Definition, reader: Reader) -> None:
    links = {
        p.name: references(p.fields.get("values", p.fields.get("value")))
        for p in definition.parameters
    }
    try:
        resolve_ties(_as_ties(links))
    except UsageError as mistake:
        reader.error(("parameters",), str(mistake))
        return
    for name, rule in definition.conditions.items():
        links[name] = links[name] | rule.names
    try:
        resolve_ties(_as_ties(links))
    except UsageError as mistake:
        circle = str(mistake).partition(": ")[2]
        reader.error(("controller", "conditions"), f"a condition depends on itself: {circle}")


def _as_ties(links: dict[str, set[str]]) -> dict[str, str]:
    return {
        name: "".join(f"${{{other}}}" for other in sorted(others)) for name, others in links.items()
    }
