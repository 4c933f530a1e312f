"""Check a sweep's keys, values and metric against what the trainer knows.

Example: ``optimizer.lrr`` is no setting; ``processing.batch_size: 0.5`` is no integer;
``val/acc`` is never logged.

What the trainer knows is passed in, either as a mapping of dotted keys to types (or to default
values), or as a function that returns what is wrong with a key and a value, or None; it is told
which files of ``conf/`` the sweep chooses beside them: ``model.encoder`` is a setting under
``model=text_classifier`` alone.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.settings.identity import canonical_text
from mlmodeldev.settings.overrides import parse_overrides
from mlmodeldev.sweep.definition import Definition
from mlmodeldev.sweep.distributions import quantile
from mlmodeldev.sweep.document import Document, Report, shown
from mlmodeldev.sweep.parameters import Parameter

Ask = Callable[[str, Any, Sequence[str]], str | None]
"""Takes a key, a value and the overrides that choose files, such as ``model=text_classifier``."""

MAX_POINTS = 300
"""So many points of a sweep are looked at for the choices that stand beside a key."""

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def check_settings(
    definition: Definition,
    known: Mapping[str, Any] | Ask,
    report: Report,
    points: Iterable[Mapping[str, Any]] = (),
) -> None:
    """Report keys that are no settings, and values that a setting's type refuses.

    Args:
        definition: of the sweep.
        known: the trainer's settings.
        report: takes the mistakes.
        points: the sweep's, of which the first few say which choices of files meet which keys.
    """
    ask = known if callable(known) else _asking(known)
    beside = _choices(definition, points)
    for parameter in definition.parameters:
        message = next(_refusals(parameter, ask, beside.get(parameter.name, [()])), None)
        if message is not None:
            report.error(parameter.line, parameter.place, message)


def _choices(
    definition: Definition, points: Iterable[Mapping[str, Any]]
) -> dict[str, list[tuple[str, ...]]]:
    """Return for each key the choices of files with which it is set; a group has no dot."""
    from mlmodeldev.settings.overrides import to_overrides

    groups = [p.name for p in definition.parameters if "." not in p.name]
    found: dict[str, dict[tuple[str, ...], None]] = {}
    for point in itertools.islice(points, MAX_POINTS) if groups else ():
        chosen = {name: point[name] for name in groups if name in point}
        for name in point:
            others = {k: v for k, v in chosen.items() if k != name}
            found.setdefault(name, {})[tuple(to_overrides(others))] = None
    return {name: list(each) for name, each in found.items()}


def _refusals(parameter: Parameter, ask: Ask, beside: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for chosen in beside:
        for value in _sample(parameter):
            if isinstance(value, str) and "${" in value:
                continue
            message = ask(parameter.name, value, chosen)
            if message is not None:
                yield f"{message} [with {' '.join(chosen)}]" if chosen else message


def _sample(parameter: Parameter) -> Iterator[Any]:
    """Yield all listed values, or some of a distribution's."""
    if "values" in parameter.fields:
        yield from parameter.fields["values"]
        return
    for u in (0.5, 0.001, 0.999):
        try:
            yield quantile(parameter, u)
        except UsageError:
            continue


def _asking(known: Mapping[str, Any]) -> Ask:
    def ask(key: str, value: Any, beside: Sequence[str]) -> str | None:
        if key not in known:
            return f"{key!r} is no setting of the trainer{nearest(key, known)}"
        return _refused(key, value, known[key])

    return ask


def _refused(key: str, value: Any, wanted: Any) -> str | None:
    kind = wanted if isinstance(wanted, type) else type(wanted)
    if wanted is None or kind not in _WORDS:
        return None
    fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if kind is not bool and isinstance(value, bool):
        fits = False
    return None if fits else f"{shown(value)} is refused: {key} takes {_WORDS[kind]}"


def check_metric(
    document: Document, definition: Definition, known: Collection[str], report: Report
) -> None:
    """Report a metric that the trainer does not log: an error if it is a near miss."""
    if definition.metric is None or definition.metric.name in known:
        return
    name = definition.metric.name
    line, key = document.line(("metric", "name")), "metric.name"
    message = f"{name!r} is not among what the trainer logs: {', '.join(sorted(known))}"
    if difflib.get_close_matches(name, list(known), n=1, cutoff=0.7):
        report.error(line, key, message + nearest(name, known))
    else:
        report.warning(line, key, f"{message}; a search or early stopping needs it logged")


DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
"""What W&B runs when a sweep gives no command."""

HYPHENS = ("args", "args_no_equals", "args_no_boolean_flags")
HYDRA = ("args_no_hyphens", "args_append_hydra", "args_override_hydra")
JSON = ("args_json", "args_json_file")
MACROS = ("env", "interpreter", "program", *HYPHENS, *HYDRA, *JSON)
_MACRO = re.compile(r"\$\{([^}]*)\}")
_WORD = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)


def check_command(document: Document, definition: Definition, report: Report) -> None:
    """Report macros that W&B does not know, and values that its command line spoils."""
    command = definition.command or DEFAULT_COMMAND
    for i, item in enumerate(command):
        message = macro_message(item)
        if message is not None:
            report.error(document.line(("command", i)), f"command[{i}]", message)
    macros = {found[1] for item in command if (found := _MACRO.fullmatch(item))}
    if message := _program_message(definition, macros):
        report.warning(document.line(("program",)), "program", message)
    if message := _arguments_message(definition, macros):
        report.error(document.line(("command",)), "command", message)
    if not macros & set(JSON):
        _check_nested(document, report)
    if macros & set(HYDRA):
        for parameter in definition.parameters:
            _check_as_text(parameter, report)


def macro_message(item: str) -> str | None:
    """Return what is wrong with the macros in an item of a command, or None."""
    for name in _MACRO.findall(item):
        if re.fullmatch(r"envvar:[A-Z0-9_]*", name):
            continue
        allowed = ", ".join(f"${{{macro}}}" for macro in (*MACROS, "envvar:NAME"))
        if name not in MACROS:
            near = nearest(name, MACROS)
            return (
                f"${{{name}}} is no macro of W&B, which drops it silently{near}; known: {allowed}"
            )
        if item != f"${{{name}}}":
            return f"{item!r}: W&B replaces ${{{name}}} only where it stands alone"
    return None


def _program_message(definition: Definition, macros: set[str]) -> str | None:
    if "program" in definition.texts or "program" not in macros:
        return None
    return "missing: 'wandb agent' will not know what to run; write program: trainer.py"


def _arguments_message(definition: Definition, macros: set[str]) -> str | None:
    if not macros & {*HYPHENS, *HYDRA, *JSON}:
        return "no ${args...}: the program would never see its values; add ${args_no_hyphens}"
    if definition.texts.get("program", "").endswith("trainer.py") and macros & set(HYPHENS):
        given = "${args}" if definition.command else "missing, which means ${args}"
        return f"{given}: gives --key=value, which Hydra refuses; use ${{args_no_hyphens}}"
    return None


def _check_nested(document: Document, report: Report) -> None:
    for name, spec in document.data["parameters"].items():
        if isinstance(spec, dict) and "parameters" in spec:
            inner = next(iter(spec["parameters"]))
            message = (
                "nested parameters reach a command line as Python text, {'key': value}: "
                f"write dotted names such as {name}.{inner}, or use ${{args_json}}"
            )
            keys = ("parameters", name)
            report.error(document.line(keys), ".".join(keys), message)


def _check_as_text(parameter: Parameter, report: Report) -> None:
    for value in _doubtful(parameter):
        argument = f"{parameter.name}={value}"
        try:
            read = parse_overrides([argument])[parameter.name]
        except UsageError:
            message = f"W&B would pass {argument}, which Hydra cannot read"
            report.error(parameter.line, parameter.place, message)
            continue
        if canonical_text(read) == canonical_text(value):
            continue
        message = f"W&B would pass {argument}, which Hydra reads as {_kind(read)} {read!r}"
        if value is None:
            report.error(parameter.line, parameter.place, f"{message}, not as null")
        else:
            report.warning(parameter.line, parameter.place, f"{message}, not as {_kind(value)}")


def _doubtful(parameter: Parameter) -> Iterator[Any]:
    """Yield the values whose text may mean something else: not numbers, not plain words."""
    for value in parameter.fields.get("values", [parameter.fields.get("value", 0)]):
        if isinstance(value, bool | int | float):
            continue
        if isinstance(value, str) and ("${" in value or _WORD.fullmatch(value)):
            if value.lower() in ("true", "false", "null", "nan", "inf"):
                yield value
            continue
        yield value


def _kind(value: Any) -> str:
    names = {"str": "the text", "NoneType": "the value", "int": "the number"}
    names |= {"float": "the number", "bool": "the boolean", "dict": "the mapping"}
    return names.get(type(value).__name__, "the list")
