"""A sweep file's meaning: method, parameters, metric, stopping, and our extensions, validated.

The file is a W&B sweep file; `docs/sweeps.md` describes it. Source of what is allowed: the schema
of `sweeps` 0.3.0 and the client 0.31.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import references, resolve_ties, says_where
from mlmodeldev.sweep.document import Document, shown
from mlmodeldev.sweep.expression import Expression
from mlmodeldev.sweep.extensions import Extensions, parse_extensions
from mlmodeldev.sweep.grid import MAX_VALUES, count_of
from mlmodeldev.sweep.invocation import Invocation
from mlmodeldev.sweep.parameters import GRID, Parameter, parse_parameters
from mlmodeldev.sweep.stopping import bands as bands_of

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
    """Those of the file, then the settings that its command itself gives to each trial."""
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


def parse(document: Document) -> Definition:
    """Return the meaning of a sweep file; mistakes are noted in the document.

    With errors in the document the definition is not to be used.

    Raises:
        UsageError: the file is no sweep at all.
    """
    data = document.data
    if not isinstance(data, dict) or not data.keys() & set(TOP_LEVEL):
        document.refuse(1, "is no sweep file: it needs 'method' and 'parameters'")
    document.only(data, (), TOP_LEVEL)
    parameters = parse_parameters(document)
    command, texts = _command(document), _texts(document)
    definition = Definition(
        file=document.file,
        method=document.choice(("method",), METHODS),
        parameters=(*parameters, *_command_settings(document, command, texts, parameters)),
        metric=_metric(document),
        early_terminate=_hyperband(document),
        run_cap=document.count(("run_cap",)),
        command=command,
        texts=texts,
        extensions=parse_extensions(document, parameters),
    )
    _check_consistency(definition, document)
    return definition


def _texts(document: Document) -> dict[str, str]:
    return {key: text for key in TEXTS if (text := document.text((key,))) is not None}


def _command_settings(
    document: Document,
    command: tuple[str, ...] | None,
    texts: dict[str, str],
    parameters: list[Parameter],
) -> list[Parameter]:
    """Return what the command itself sets as constants, for they are part of what a trial is."""
    invocation = Invocation.of(command, texts.get("program"))
    if not invocation.fixed:
        return []
    place = ("command", invocation.fixed[0])
    try:
        settings = invocation.settings
    except UsageError as mistake:
        document.error(place, str(mistake))
        return []
    names = {parameter.name for parameter in parameters}
    for key in settings.keys() & names:
        document.error(place, f"sets {key}, which is a parameter of the sweep")
    return [
        Parameter(key, "constant", {"value": value}, place)
        for key, value in settings.items()
        if key not in names
    ]


def _metric(document: Document) -> Metric | None:
    key = "metric"
    if document.section(key, _METRIC) is None:
        return None
    name = document.text((key, "name"))
    if not name:
        document.error((key,), "needs a 'name', such as val/loss")
    goal = document.choice((key, "goal"), ("minimize", "maximize"), "minimize")
    return Metric(name or "", goal, document.number((key, "target")))


def _hyperband(document: Document) -> Hyperband | None:
    key = "early_terminate"
    data = document.section(key, _HYPERBAND)
    if data is None:
        return None
    document.choice((key, "type"), ("hyperband",))
    if "min_iter" not in data and not {"max_iter", "s"} <= data.keys():
        document.error((key,), "needs 'min_iter', or 'max_iter' with 's'")
    elif "max_iter" in data and "s" not in data:
        document.error((key, "max_iter"), "needs 's' beside it, also where there is a 'min_iter'")
    elif "min_iter" in data and "max_iter" in data:
        document.warning((key, "min_iter"), "is of no account beside 'max_iter', as on W&B")
    eta = document.number((key, "eta"), 3.0)
    if eta is not None and not 1 < eta < math.inf:
        document.error((key, "eta"), f"{shown(eta)} must be greater than 1")
    strict = data.get("strict", True)
    if not isinstance(strict, bool):
        document.error((key, "strict"), f"{shown(strict)} must be true or false")
    bands = document.number((key, "s"))
    if bands is not None and not -math.inf < bands < math.inf:
        document.error((key, "s"), f"{shown(bands)} must be a finite number")
    first = document.count((key, "min_iter"))
    last = document.count((key, "max_iter"))
    rule = Hyperband(None if last else first, last, bands, eta or 3.0, bool(strict))
    if last is not None and bands is not None and not document.errors and not bands_of(rule):
        document.warning((key,), "stops nothing: there is no band at or below max_iter / eta")
    return rule


def _command(document: Document) -> tuple[str, ...] | None:
    value = document.data.get("command")
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        document.error(("command",), "must be a list, such as ['${env}', '${program}', '${args}']")
        return None
    for i, item in enumerate(value):
        if isinstance(item, dict | list) or item is None:
            document.error(("command", i), f"{shown(item)} must be text")
    return tuple(str(item) for item in value)


def _check_consistency(definition: Definition, document: Document) -> None:
    """Report what does not fit together in an otherwise readable sweep file."""
    if definition.method == "bayes" and definition.metric is None:
        document.error(("method",), "bayes needs a 'metric' with a name and a goal")
    if definition.method == "bayes" and all(p.is_constant for p in definition.parameters):
        document.error(("method",), "bayes needs a parameter to search: all have one value")
    if definition.early_terminate and definition.metric is None:
        document.error(("early_terminate",), "hyperband needs a 'metric' to compare trials by")
    for parameter in definition.parameters:
        message = _where_message(parameter)
        if message is None and definition.method == "grid":
            message = _grid_message(parameter)
        if message is not None:
            document.error(parameter.keys, message)
    _check_circles(definition, document)
    _check_number_texts(definition, document)


def _check_number_texts(definition: Definition, document: Document) -> None:
    """Report values such as ``1e-5``, which YAML 1.1 reads as text.

    Another program gets that text from each engine, as from W&B, and most make a number of it. A
    setting of the trainer would be refused.
    """
    places = {p.keys for p in definition.parameters} if document.number_like else set()
    is_foreign = Invocation.of(definition.command, definition.texts.get("program")).is_foreign
    for keys, better in document.number_like.items():
        if not any(keys[:end] in places for end in range(len(keys))):
            continue  # whatever reads it has said so
        text = f"{document.value(keys)} is text in YAML 1.1, not a number: write {better}"
        if is_foreign:
            document.warning(keys, f"{text}; each engine hands it to the program as it stands")
        else:
            document.error(keys, text)


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


def _check_circles(definition: Definition, document: Document) -> None:
    links = {
        p.name: references(p.fields.get("values", p.fields.get("value")))
        for p in definition.parameters
    }
    try:
        resolve_ties(_as_ties(links))
    except UsageError as mistake:
        document.error(("parameters",), str(mistake))
        return
    for name, rule in definition.conditions.items():
        links[name] = links[name] | rule.names
    try:
        resolve_ties(_as_ties(links))
    except UsageError as mistake:
        circle = str(mistake).partition(": ")[2]
        document.error(("controller", "conditions"), f"a condition depends on itself: {circle}")


def _as_ties(links: dict[str, set[str]]) -> dict[str, str]:
    return {
        name: "".join(f"${{{other}}}" for other in sorted(others)) for name, others in links.items()
    }
