"""Runs that W&B's server hands out, read as the sweep's file means them.

The server draws values and knows nothing of ties, constraints and conditions, nor of settings that
the command itself gives. Who runs a trial for it applies them, so that a file means on the server
what it means anywhere.

Example::

    served = ServedSweep(config, "team/digits/ab12cd34")
    served.refusal({"lr": 2.0})              # "breaks the constraint lr < 1"; None: it is a trial
    served.call({"lr": 0.1}).settings        # what the trial is
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import canonical_text, flatten
from mlmodeldev.sweep.definition import parse
from mlmodeldev.sweep.document import Document
from mlmodeldev.sweep.grid import countable_values
from mlmodeldev.sweep.invocation import Invocation, TrialCall
from mlmodeldev.sweep.loading import Sweep
from mlmodeldev.sweep.parameters import Parameter

_READ = ("method", "parameters", "metric", "program", "command", "controller")
"""What of a server's configuration says which trials there are; it may add keys of its own."""
_OURS = ("constraints", "conditions", "replicates")


class ServedSweep:
    """A sweep that a server hands out.

    Args:
        config: its configuration, as the server has it.
        name: of the sweep, for messages.
        root: the project's folder.

    Attributes:
        sweep: what the configuration declares; None where we can't read it, and it has no rules.

    Raises:
        UsageError: there are rules, or settings in the command, that can't be read.
    """

    def __init__(self, config: Mapping[str, Any], name: str, root: Path | None = None) -> None:
        command = config.get("command")
        words = [str(word) for word in command] if isinstance(command, list) else None
        self.invocation = Invocation.of(words, config.get("program"), root)
        self.sweep = _readable(config, name, bool(self.invocation.fixed))

    def call(self, values: Mapping[str, Any]) -> TrialCall:
        """Return what the trial of these values is called with."""
        if self.sweep is None:
            return TrialCall(values, flatten(values))
        raw = self._raw(self.sweep, values)
        point = self.sweep.space.rules.apply(raw)
        call = self.sweep.call(raw if point is None else point)
        return replace(call, values=_in_order_of(values, call.values))

    def refusal(self, values: Mapping[str, Any]) -> str | None:
        """Return why these values are no trial of their own; None if they are one."""
        if self.sweep is None:
            return None
        rules, raw = self.sweep.space.rules, self._raw(self.sweep, values)
        point = rules.apply(raw)
        if point is None:
            return "its values break a constraint"
        for name in raw.keys() - point.keys():
            first = self._first_values.get(name)
            if first is not None and canonical_text(raw[name]) != first:
                return f"{name} is left out there, so it is the trial of another run"
        return None

    @cached_property
    def _first_values(self) -> dict[str, str]:
        """The conditional parameters of a grid, whose first value stands for all.

        Random and searched runs that come to one point share its folder instead.
        """
        if self.sweep is None or self.sweep.method != "grid":
            return {}
        definition = self.sweep.definition
        return {
            p.name: canonical_text(countable_values(p)[0])
            for p in definition.parameters
            if p.name in definition.conditions
        }

    @staticmethod
    def _raw(sweep: Sweep, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the sweep's own parameters, by dotted key."""
        raw: dict[str, Any] = {}
        for parameter in sweep.definition.parameters:
            if parameter.path:
                raw.update(_value_of(parameter, values))
            else:
                raw[parameter.name] = parameter.fields["value"]
        return raw


def _in_order_of(given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in the order in which the server gives them, as its own agent does."""
    names = sorted(values, key=list(given).index) if values.keys() <= given.keys() else list(values)
    return {
        name: _in_order_of(given[name], values[name])
        if isinstance(given.get(name), Mapping) and isinstance(values[name], Mapping)
        else values[name]
        for name in names
    }


def _value_of(parameter: Parameter, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameter's value, nested or dotted; nothing where it is not set."""
    node: Any = values
    for name in parameter.path:
        if not isinstance(node, Mapping) or name not in node:
            return {k: values[k] for k in (parameter.name,) if k in values}
        node = node[name]
    return {parameter.name: node}


def _readable(config: Mapping[str, Any], name: str, has_settings: bool) -> Sweep | None:
    """Return the sweep; None where W&B takes what we don't, and there are no rules to lose."""
    document = Document(name, data={key: config[key] for key in _READ if key in config})
    try:
        definition = parse(document)
        document.raise_errors()
    except UsageError:
        controller = config.get("controller")
        rules = isinstance(controller, Mapping) and any(key in controller for key in _OURS)
        if rules or has_settings:
            raise
        return None
    return Sweep(definition)
