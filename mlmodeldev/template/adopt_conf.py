"""Files of ``conf/`` and ``sweep/`` for a repository's own model and data.

Example::

    group = Group("model", "net:Net", description, own_values, {"hidden": 64})
    group.text()        # the content of conf/model/net.yaml
    group.missing       # ["optimizer"], which has no default and was not given
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_PASSED_OVER = {"conf", "runs", "node_modules", "site-packages"}


@dataclass(frozen=True)
class OwnYaml:
    """What a settings file of the repository says of a class.

    Args:
        file: below the repository; None: there is no such file.
        values: its arguments, without those that need the rest of the repository's settings.
        tied: arguments with ``${...}``, as written.
    """

    file: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    tied: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """The settings of a class: ``conf/model/NAME.yaml`` or ``conf/data/NAME.yaml``.

    Args:
        group: ``model`` or ``data``.
        target: ``package.module:Class``.
        described: of `adopt_signature`.
        own: what a settings file of the repository says.
        given: values from the command line, which come first.
        filled: whether the data may fill in what is not set.
    """

    group: str
    target: str
    described: Mapping[str, Any]
    own: OwnYaml
    given: Mapping[str, Any]
    filled: bool = False

    @property
    def name(self) -> str:
        """Of the file: ``LitNet`` gives ``lit_net``."""
        kind = self.target.rpartition(":")[2]
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind)
        return words.lower().strip("_")

    @property
    def place(self) -> str:
        """Of the file, below the repository."""
        return f"conf/{self.group}/{self.name}.yaml"

    @property
    def values(self) -> dict[str, Any]:
        """The arguments that the file sets."""
        result: dict[str, Any] = {}
        for one in self.described["arguments"]:
            name = one["name"]
            for source in (self.given, self.own.values):
                if name in source:
                    result[name] = source[name]
                    break
            else:
                if "value" in one:
                    result[name] = one["value"]
        if self.described["of_bases"] is not None:  # **kwargs takes what has no name here
            result |= {k: v for k, v in {**self.own.values, **self.given}.items() if k[0] != "_"}
        return result

    @property
    def missing(self) -> list[str]:
        """Arguments without a default that nothing gives a value to."""
        present = self.values
        return [
            one["name"]
            for one in self.described["arguments"]
            if one.get("required") and one["name"] not in present and not self.filled
        ]

    @property
    def unwritten(self) -> dict[str, str]:
        """Arguments that the file leaves to the constructor, each with the reason."""
        present = self.values
        return {
            one["name"]: one["unwritten"]
            for one in self.described["arguments"]
            if "unwritten" in one and one["name"] not in present
        }

    def unexpected(self) -> str | None:
        """Return the name of a value from the command line that the class does not take."""
        if self.described["of_bases"] is not None:
            return None
        names = {one["name"] for one in self.described["arguments"]}
        return next((name for name in self.given if name not in names), None)

    def text(self) -> str:
        """Return the content of the file."""
        source = f"; values of {self.own.file}" if self.own.file else ""
        lines = [f"# What the constructor of {self.target.replace(':', '.')} takes{source}."]
        lines += [f"_target_: {self.target.replace(':', '.')}"]
        present = self.values
        for one in self.described["arguments"]:
            lines += self._lines(one, present)
        named = {one["name"] for one in self.described["arguments"]}
        for name, value in present.items():
            if name not in named:
                lines.append(_entry(name, value))
        for one in self.described["of_bases"] or ():
            if one["name"] not in present:
                lines.append(f"# {_entry(one['name'], one.get('value', '???'))}  # by **kwargs")
        return "\n".join(lines) + "\n"

    def _lines(self, one: Mapping[str, Any], present: Mapping[str, Any]) -> Iterator[str]:
        name, kind = one["name"], one["annotation"]
        tie = f"; {self.own.file} has {self.own.tied[name]}" if name in self.own.tied else ""
        if name in present:
            yield _entry(name, present[name])
        elif "unwritten" in one:
            yield f"# {name}: left to the constructor: {one['unwritten']}"
        elif self.filled:
            yield f"# {name}: ???  # {kind or 'required'}; the data may fill it in{tie}"
        else:
            yield f"{name}: ???  # {kind or 'required'}{tie}"


def _entry(name: str, value: Any) -> str:
    """Return a key and its value: objects in lines of their own, lists on one."""
    if isinstance(value, list) or value == {}:
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
        return f"{name}: {text.strip()}"
    return yaml.safe_dump({name: value}, sort_keys=False, width=10**6).rstrip()


def own_yaml(root: Path, target: str) -> OwnYaml:
    """Return what the repository's own settings say of a class, from the first file that does.

    A file counts that has the class as ``_target_`` at its top, as Hydra's groups have.

    Args:
        target: ``package.module:Class``.
    """
    wanted = target.replace(":", ".")
    for file in sorted(root.rglob("*.y*ml"), key=lambda file: (len(file.parts), file)):
        parts = file.relative_to(root).parts
        if _PASSED_OVER & set(parts) or any(part.startswith(".") for part in parts):
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, OSError, ValueError):
            continue
        if not isinstance(content, dict) or content.get("_target_") != wanted:
            continue
        values = {
            key: value
            for key, value in content.items()
            if isinstance(key, str) and key not in ("_target_", "defaults") and value != "???"
        }
        tied = {key: value for key, value in values.items() if "${" in str(value)}
        plain = {key: value for key, value in values.items() if key not in tied}
        return OwnYaml("/".join(parts), plain, tied)
    return OwnYaml()


def config_text(template: str, model: str, data: str) -> str:
    """Return conf/config.yaml with a model and data chosen."""
    for group, name in (("model", model), ("data", data)):
        template, count = re.subn(rf"(?m)^(  - {group}: )\S+", rf"\g<1>{name}", template)
        if count != 1:
            raise RuntimeError(f"conf/config.yaml: has {count} lines of '{group}', one is expected")
    return template


def with_monitor(config: str, monitor: str, mode: str) -> str:
    """Return conf/config.yaml with the metric that decides which weights are best."""
    text = yaml.safe_dump({"monitor": monitor, "mode": mode}, sort_keys=False)
    indented = "".join(f"  {line}\n" for line in text.splitlines())
    return f"{config.rstrip()}\n\ntraining:\n{indented}"
