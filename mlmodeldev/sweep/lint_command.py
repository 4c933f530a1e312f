"""Check a sweep's ``command``: macros that W&B does not have, and values that it would spoil.

W&B starts a trial as ``command`` says, with macros such as ``${args_no_hyphens}`` for the values,
which then pass through a command line as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import canonical_text, references
from mlmodeldev.settings.overrides import parse_overrides
from mlmodeldev.sweep.definition import Definition
from mlmodeldev.sweep.document import Document
from mlmodeldev.sweep.invocation import ARGUMENTS, HYDRA, JSON, Invocation, macro_message
from mlmodeldev.sweep.parameters import Parameter

_WORD = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)


def check_command(document: Document, definition: Definition) -> None:
    """Report macros that W&B does not have, and values that its command line spoils."""
    invocation = Invocation.of(definition.command, definition.texts.get("program"))
    for i, item in enumerate(invocation.command):
        if message := macro_message(item):
            document.error(("command", i), message)
    _check_program(document, definition, invocation)
    values = invocation.macros & {*ARGUMENTS}
    if not values:
        _report_no_values(document, invocation)
    elif invocation.is_foreign and not values & {*JSON}:
        _check_nested(document)
    if invocation.is_foreign and (definition.method == "bayes" or definition.early_terminate):
        keys = ("early_terminate",) if definition.early_terminate else ("method",)
        message = f"needs the log of trainer.py: {invocation.name} has it on W&B's server only"
        document.error(keys, message)
    if not invocation.is_foreign:
        return  # it reads the file of values that the agent leaves for it, where null is null
    if values & {*HYDRA}:
        for parameter in definition.parameters:
            _check_as_text(parameter, document)
    if values:
        _check_ties(document, definition)


def _check_program(document: Document, definition: Definition, invocation: Invocation) -> None:
    if "program" not in definition.texts and "program" in invocation.macros:
        message = "missing: 'wandb agent' will not know what to run; write program: trainer.py"
        document.warning(("program",), message)
    if invocation.missing:
        key, why = invocation.missing
        document.error((key,), why)


def _report_no_values(document: Document, invocation: Invocation) -> None:
    if invocation.is_foreign:
        message = "no ${args...}: the program sees its values by wandb.init() alone, in its config"
        document.warning(("command",), message)
        return
    message = "no ${args...}: the program would never see its values; add ${args_no_hyphens}"
    document.error(("command",), message)


def _check_nested(document: Document) -> None:
    """Warn of nested parameters on the command line of another program, which few can read."""
    for name, spec in document.data["parameters"].items():
        if isinstance(spec, dict) and "parameters" in spec:
            inner = next(iter(spec["parameters"]))
            message = (
                "nested parameters reach a command line as Python text, {'key': value}, as on W&B: "
                f"write dotted names such as {name}.{inner}, or use ${{args_json}}"
            )
            document.warning(("parameters", name), message)


def _check_ties(document: Document, definition: Definition) -> None:
    """Warn of ties, which W&B's own agent hands to another program as they are written."""
    names = {parameter.name for parameter in definition.parameters}
    for parameter in definition.parameters:
        values = parameter.fields.get("values", parameter.fields.get("value"))
        if tied := sorted(references(values) & names):
            message = f"'wandb agent' hands ${{{tied[0]}}} over as text; our agent resolves it"
            document.warning(parameter.keys, message)


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
