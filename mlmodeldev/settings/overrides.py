"""Hydra's command-line overrides to and from a mapping, with types kept.

Example::

    parse_overrides(["optimizer.lr=1e-3", "model=text_classifier"])
    # {"optimizer.lr": 0.001, "model": "text_classifier"}
    to_overrides({"optimizer.lr": 1e-05, "model.name": "10"})
    # ["optimizer.lr=1e-05", "model.name='10'"]

`to_overrides` gives arguments for a process (argv); `shell_text` quotes them for a shell.

``wandb agent`` writes a trial's values on the command line as Python prints them, so ``None``
would arrive as text. It also leaves them, with their types, in a file that `typed` reads.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import flatten, plain_value

_KEY = re.compile(r"(\+\+?|~)?[A-Za-z_$][\w$-]*([./][\w$-]+)*(@[A-Za-z_$][\w$.-]*)?", re.ASCII)
_DICT_KEY = re.compile(r"[A-Za-z_][\w./@-]*", re.ASCII)
_WORD = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
# Words that Hydra reads as something else than text, in any mix of cases.
_NOT_TEXT = {"true", "false", "null", "inf", "nan"}


def parse_overrides(argv: Sequence[str]) -> dict[str, Any]:
    """Return Hydra's overrides as a mapping of dotted keys to typed values.

    ``+`` and ``++`` are dropped from keys; a deletion ``~key`` gives ``{"~key": None}``; of a key
    that is given twice the last counts, as in Hydra. Imports Hydra (0.2 s).

    Raises:
        UsageError: an item is no override, or is a Hydra multi-run such as ``a=1,2``.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed: dict[str, Any] = {}
    for item in argv:
        try:
            override = parser.parse_override(item)
        except (HydraException, ValueError) as error:  # the latter: a number of 5,000 digits
            raise UsageError(f"{item!r} is no override key=value: {_first_line(error)}") from None
        if override.is_sweep_override():
            raise UsageError(f"{item!r} gives several values; one trial needs one: quote the text")
        if not override.key_or_group:
            raise UsageError(f"{item!r} is no override key=value: the key is missing")
        deleted = "~" if override.type is OverrideType.DEL else ""
        key = deleted + override.get_key_element().lstrip("+~")
        _drop_from_mapping(parsed, key)
        parsed[key] = plain_value(override.value())
    return parsed


def _drop_from_mapping(parsed: Mapping[str, Any], key: str) -> None:
    """Take a dotted key out of a mapping that was given before: the later value counts."""
    parts = key.split(".")
    for depth in range(1, len(parts)):
        node = parsed.get(".".join(parts[:depth]))
        for part in parts[depth:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(parts[-1], None)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def to_overrides(overrides: Mapping[str, Any]) -> list[str]:
    """Return the overrides as Hydra command-line arguments, in the order given.

    What Hydra parses from them equals the mapping, types included. ``{"~key": None}`` deletes a
    key; a key may open with ``+`` or ``++``.

    Raises:
        UsageError: Hydra cannot write the key or the value (a NUL character, a mapping's key
            that is no plain name).
    """
    return [_override(key, plain_value(value)) for key, value in overrides.items()]


def shell_text(overrides: Mapping[str, Any]) -> str:
    """Return the overrides quoted for a shell's command line."""
    return shlex.join(to_overrides(overrides))


def _override(key: str, value: Any) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise UsageError(f"{key!r} is no key that Hydra can set: use names joined by dots")
    if key.startswith("~") and value is None:
        return key
    return f"{key}={_render(key, value)}"


def _render(key: str, value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _render_text(key, value)
    if isinstance(value, list):
        return "[" + ",".join(_render(key, inner) for inner in value) + "]"
    pairs = (f"{_dict_key(key, k)}:{_render(key, v)}" for k, v in value.items())
    return "{" + ",".join(pairs) + "}"


def _render_text(key: str, text: str) -> str:
    if "\0" in text:
        raise UsageError(f"{key}: a NUL character cannot be passed on a command line")
    if _WORD.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    # Hydra unescapes backslashes only before a quote and at the end; elsewhere they are plain.
    escaped = re.sub(r"(\\*)'", lambda m: m[1] * 2 + r"\'", text)
    escaped = re.sub(r"(\\+)\Z", lambda m: m[1] * 2, escaped)
    return f"'{escaped}'"


def _dict_key(key: str, name: Any) -> str:
    if isinstance(name, str) and _DICT_KEY.fullmatch(name) and name.lower() not in _NOT_TEXT:
        return name
    raise UsageError(f"{key}: Hydra cannot write the key {name!r} of a mapping: use a plain name")


FILE_VARIABLE = "WANDB_SWEEP_PARAM_PATH"
"""Names the file in which an agent leaves the trial's values."""

_ARGUMENT = re.compile(r"(?:--|\+{0,2})([^=\s]+)=.*", re.DOTALL)


def typed(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with an agent's values in Hydra's spelling; without an agent as given.

    All of W&B's forms are understood: ``key=value``, with ``--``, ``+`` or ``++`` before it,
    ``--key value``, ``--flag`` (which leaves out what is false), one JSON object, and the file
    that holds it. A ``+`` says nothing here, for the trainer knows its settings.

    Raises:
        UsageError: the agent's file is not there, or holds no parameters.
    """
    file = os.environ.get(FILE_VARIABLE)
    if not file or not os.environ.get("WANDB_SWEEP_ID"):
        return list(arguments)
    values = read_parameters(Path(file))
    result: list[str] = []
    ahead = list(arguments)
    while ahead:
        argument = ahead.pop(0)
        match = _ARGUMENT.fullmatch(argument)
        flag = argument.removeprefix("--")
        if argument.startswith("{") or _is_json_file(argument, Path(file)):
            result += _spelled(values)
        elif match and match[1] in values:
            result += _spelled({match[1]: values[match[1]]})
        elif flag != argument and flag in values:
            result += _spelled({flag: values[flag]})
            if ahead and ahead[0] == str(values[flag]):
                ahead.pop(0)
        else:
            result.append(argument)
    return [*_left_out(values, result, arguments), *result]


def _is_json_file(argument: str, file: Path) -> bool:
    return Path(argument).name == file.with_suffix(".json").name and argument.endswith(".json")


def _spelled(values: Mapping[str, Any]) -> list[str]:
    """Return values in Hydra's spelling; a group of nested parameters as what it is made of."""
    spelled: dict[str, Any] = {}
    for key, value in values.items():
        # a dotted name is a parameter by itself, whose value may be a mapping
        spelled |= {key: value} if "." in key else flatten({key: value})
    return to_overrides(spelled)


def _left_out(values: Mapping[str, Any], result: list[str], arguments: Sequence[str]) -> list[str]:
    """Return the false values that ``--flag`` leaves out, where that form is used."""
    flags = {f"--{name}" for name, value in values.items() if value is True} & {*arguments}
    plain = any(f"--{name}={value}" in arguments for name, value in values.items())
    if not flags and not plain:
        return []
    present = {item.partition("=")[0] for item in result}
    return _spelled({k: v for k, v in values.items() if v is False and k not in present})


def read_parameters(file: Path) -> dict[str, Any]:
    """Return the values of an agent's parameter file."""
    import yaml

    try:
        entries = yaml.safe_load(file.read_text()).items()
        return {name: entry["value"] for name, entry in entries if name != "wandb_version"}
    except (OSError, ValueError, yaml.YAMLError, AttributeError, TypeError, KeyError):
        raise UsageError(
            f"{FILE_VARIABLE}={file}: is no file of parameters that an agent has written"
        ) from None
