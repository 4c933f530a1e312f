"""Check a sweep's ``command``: macros that W&B does not have, and values that it would spoil.

W&B starts a trial as ``command`` says, with macros such as ``${args_no_hyphens}`` for the values,
which then pass through a command line as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.settings.identity import canonical_text
from mlmodeldev.settings.overrides import parse_overrides
from mlmodeldev.sweep.definition import Definition
from mlmodeldev.sweep.document import Document
from mlmodeldev.sweep.parameters import Parameter

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
"""What W&B runs when a sweep gives no command."""

HYPHENS = ("args", "args_no_equals", "args_no_boolean_flags")
HYDRA = ("args_no_hyphens", "args_append_hydra", "args_override_hydra")
JSON = ("args_json", "args_json_file")
MACROS = ("env", "interpreter", "program", *HYPHENS, *HYDRA, *JSON)
_MACRO = re.compile(r"\$\{([^}]*)\}")
_WORD = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)


def check_command(document: Document, definition: Definition) -> None:
    """Report macros that W&B does not have, and values that its command line spoils."""
    command = definition.command or DEFAULT_COMMAND
    for i, item in enumerate(command):
        if message := macro_message(item):
            document.error(("command", i), message)
    macros = {match[1] for item in command if (match := _MACRO.fullmatch(item))}
    if message := _program_message(definition, macros):
        document.warning(("program",), message)
    if message := _arguments_message(definition, macros):
        document.error(("command",), message)
    if not macros & set(JSON):
        _check_nested(document)
    # trainer.py reads the file of values that the agent leaves for it, where null is null.
    reads_file = definition.texts.get("program", "").endswith("trainer.py")
    if macros & set(HYDRA) and not reads_file:
        for parameter in definition.parameters:
            _check_as_text(parameter, document)


def macro_message(item: str) -> str | None:
    """Return what is wrong with the macros in an item of a command, or None."""
    for name in _MACRO.findall(item):
        if re.fullmatch(r"envvar:[A-Z0-9_]*", name):
            continue
        allowed = ", ".join(f"${{{macro}}}" for macro in (*MACROS, "envvar:NAME"))
        if name not in MACROS:
            hint = nearest(name, MACROS)
            message = f"${{{name}}} is no macro of W&B, which drops it silently"
            return f"{message}{hint}; allowed: {allowed}"
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


def _check_nested(document: Document) -> None:
    for name, spec in document.data["parameters"].items():
        if isinstance(spec, dict) and "parameters" in spec:
            inner = next(iter(spec["parameters"]))
            message = (
                "nested parameters reach a command line as Python text, {'key': value}: "
                f"write dotted names such as {name}.{inner}, or use ${{args_json}}"
            )
            document.error(("parameters", name), message)


def _check_as_text(parameter: Parameter, document: Document) -> None:
    for value in _ambiguous_values(parameter):
        argument = f"{parameter.name}={value}"
        try:
            read = parse_overrides([argument])[parameter.name]
        except UsageError:
            message = f"W&B would pass {argument}, which Hydra cannot read"
            document.error(parameter.keys, message)
            continue
        if canonical_text(read) == canonical_text(value):
            continue
        message = f"W&B would pass {argument}, which Hydra reads as {_kind(read)} {read!r}"
        if value is None:
            document.error(parameter.keys, f"{message}, not as null")
        else:
            document.warning(parameter.keys, f"{message}, not as {_kind(value)}")


def _ambiguous_values(parameter: Parameter) -> Iterator[Any]:
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
