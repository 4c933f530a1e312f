"""What a W&B server tells an agent to do, checked before anything is done.

A command without the shape of one is passed over; a run without usable values is one that fails,
with the reason, and keeps nobody from the next.

Example::

    commands, odd = read_commands('[{"type": "run", "run_id": "x7", "args": {...}}]', config)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlmodeldev.secrets import masked
from mlmodeldev.tracking.served_values import refusal
from mlmodeldev.trial.agent_run import RUN_ID


class Command(BaseModel):
    """One command.

    Attributes:
        type: ``run`` a new configuration, ``resume`` a run that was given before, ``stop`` a run,
            ``exit``.
        run_id: the run; None for all of the agent's.
        args: as they came; `values_of` picks the sweep's parameters.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["run", "resume", "stop", "exit"]
    run_id: str | None = Field(default=None, pattern=f"^{RUN_ID}$")
    args: Any = None

    @model_validator(mode="after")
    def _names_its_run(self) -> Command:
        if self.begins and self.run_id is None:
            raise ValueError("a run without an id")
        return self

    @property
    def begins(self) -> bool:
        """Whether a trial is to be begun, or gone on with."""
        return self.type in ("run", "resume")


def read_commands(content: Any) -> tuple[list[Command], str]:
    """Return the commands of an answer that can be followed, and what is odd about the others.

    Args:
        content: JSON text of a list, as the server sends it; None and "" are no commands.
    """
    if content is None or content == "":
        return [], ""
    try:
        listed = json.loads(content)
    except (TypeError, ValueError, RecursionError):
        return [], "commands that are no JSON"
    if listed is None:
        return [], ""
    if not isinstance(listed, list):
        return [], f"commands that are no list but {_kind(listed)}"
    commands, odd = [], ""
    for each in listed:
        try:
            commands.append(Command.model_validate(each))
        except ValidationError:
            what = each.get("type") if isinstance(each, dict) else each
            odd = f"a command that can't be followed ({masked(str(what), 40)})"
    return commands, odd


def values_of(command: Command, parameters: Any) -> dict[str, Any]:
    """Return the values of a sweep's parameters that a command carries.

    The server sends a run that is resumed with its whole configuration, which is more than the
    sweep's parameters; the rest is left out.

    Args:
        command: ``run`` or ``resume``.
        parameters: of the sweep's configuration.

    Raises:
        ValueError: the values have another shape, one is missing of a run that is resumed, or one
            is not for a server to set (`mlmodeldev.tracking.served_values`).
    """
    args = {} if command.args is None else command.args
    if not isinstance(args, dict):
        raise ValueError(f"the server gives no values but {_kind(args)}")
    declared: Mapping[str, Any] = parameters if isinstance(parameters, Mapping) else {}
    names = [name for name in args if name in declared or (not declared and name[:1] != "_")]
    values = {}
    for name in names:
        entry = args[name]
        if not isinstance(entry, dict) or "value" not in entry:
            raise ValueError(f"the server gives no value of {name}")
        spec = declared.get(name)
        values[name] = _declared(entry["value"], spec)
        if reason := refusal(name, values[name], spec):
            raise ValueError(reason)
    missing = [name for name in declared if name not in values]
    if missing and command.type == "resume":
        raise ValueError(f"the server gives no value of {missing[0]}")
    return values


def _declared(value: Any, spec: Any) -> Any:
    """Return of a nested value what the sweep declares."""
    inner = spec.get("parameters") if isinstance(spec, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(value, dict):
        return value
    return {name: _declared(value[name], inner[name]) for name in value if name in inner}


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")
