"""Read a sweep file: YAML as plain data, with the line of every key and value.

Example::

    report = Report("sweep/config.yaml")
    document = read("sweep/config.yaml", report)
    document.data["method"]                         # 'grid'
    document.line(("parameters", "optimizer.lr"))   # 14

What YAML 1.1 makes of a file is what W&B sends, so the traps of YAML 1.1 are found here: text
that only looks like a number (``1e-5``), ``off`` as a boolean, a date, a key given twice.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml

from mlmodeldev.errors import UsageError
from mlmodeldev.secrets.patterns import find
from mlmodeldev.secrets.refusal import ADVICE

Keys = tuple[str | int, ...]

MAX_BYTES = 4_000_000
"""Larger files are refused: a sweep file is written by hand."""
_MAX_NODES = 200_000
_MAX_DEPTH = 40
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# In these a text that looks like a number is just text.
_FREE_TEXT = {(key,) for key in ("name", "description", "project", "entity", "program", "command")}
_FLOAT_LIKE = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")
_BOOLEAN_LIKE = re.compile(r"(yes|no|on|off)", re.IGNORECASE)
_OCTAL_LIKE = re.compile(r"[-+]?0[0-7_]+")
_BASE_60_LIKE = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?")


@dataclass
class Document:
    """A YAML file as data, and where each part of it stands."""

    file: str
    data: Any
    lines: dict[Keys, int] = field(default_factory=dict)
    text: str = ""

    def line(self, keys: Keys) -> int:
        """Return the line of the nearest known part at or above these keys, from 1."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)


def dotted(keys: Keys) -> str:
    """Return keys as people write them: ``parameters.lr.values[2]``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def read(path: str | Path, report: Report) -> Document:
    """Read a YAML file; traps of single values go into the report.

    Raises:
        UsageError: the file cannot be read, is too large, or is no YAML.
    """
    return read_text(_text(Path(path), report), str(path), report)


def read_text(text: str, file: str, report: Report) -> Document:
    """Read YAML from text; `file` is the name that messages give.

    Raises:
        UsageError: the text is no YAML.
    """
    key = next(find(text), None)
    if key:
        report.refuse(key.line, f"holds a key ({key.kind}); {ADVICE}")
    root = _compose(text, report)
    document = Document(file, None, text=text)
    if root is not None:
        document.data = _Builder(document, report).build(root, (), 0)
    return document


def _text(path: Path, report: Report) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        report.refuse(1, f"cannot be read: {error.strerror or error}")
    except ValueError:
        report.refuse(1, "is no text in UTF-8, so no sweep file")
    if len(raw) > MAX_BYTES:
        report.refuse(1, f"is larger than {MAX_BYTES // 10**6} MB, so no sweep file")
    return text


def _compose(text: str, report: Report) -> yaml.Node | None:
    try:
        _refuse_deep(text, report)
        return yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        report.refuse(_error_line(error), _error_text(error))
    except (RecursionError, ValueError, OverflowError) as error:
        report.refuse(1, f"is no valid YAML: {error}")


def _refuse_deep(text: str, report: Report) -> None:
    # The composer recurses: a deep nest would overflow the stack, perhaps out of `except`'s reach.
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                line = event.start_mark.line if event.start_mark else 0
                report.refuse(line + 1, f"is nested more than {_MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _error_line(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return mark.line + 1 if mark else 1


def _error_text(error: yaml.YAMLError) -> str:
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    text = ", ".join(part for part in parts if part) or str(error).splitlines()[0]
    return f"is no valid YAML: {text}"


class _Builder:
    """Turns YAML nodes into data, noting lines and traps on the way."""

    def __init__(self, document: Document, report: Report) -> None:
        self.document = document
        self.report = report
        self.nodes = 0
        self.scalars = yaml.SafeLoader("")

    def build(self, node: yaml.Node, keys: Keys, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > _MAX_NODES or depth > _MAX_DEPTH:
            message = "expands to too much: an alias that contains itself, or aliases of aliases"
            self.report.refuse(node.start_mark.line + 1, message)
        self.document.lines.setdefault(keys, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            line = node.start_mark.line + 1
            self.report.error(line, dotted(keys), f"the tag {node.tag} is not allowed")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(inner, (*keys, i), depth + 1) for i, inner in enumerate(node.value)]
        return self._scalar(node, keys)

    def _mapping(self, node: yaml.MappingNode, keys: Keys, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged = self._merged(value_node, keys, depth) | merged
                continue
            key = self._key(key_node, keys)
            if key is None:
                continue
            line = key_node.start_mark.line + 1
            if key in data:
                first = self.document.line((*keys, key))
                self.report.error(line, dotted((*keys, key)), f"given twice, first in line {first}")
                continue
            self.document.lines[(*keys, key)] = line
            data[key] = self.build(value_node, (*keys, key), depth + 1)
        return merged | data

    def _merged(self, node: yaml.Node, keys: Keys, depth: int) -> dict[str, Any]:
        value = self.build(node, keys, depth + 1)
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            line = node.start_mark.line + 1
            self.report.error(line, dotted(keys), "<<: takes a mapping or a list of mappings")
            return {}
        merged: dict[str, Any] = {}
        for part in parts:
            merged = part | merged
        return merged

    def _key(self, node: yaml.Node, keys: Keys) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return str(node.value)
        given = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        self.report.error(
            node.start_mark.line + 1,
            dotted(keys),
            f"the key {given} is read as {_kind(node)}, not as text: put it in quotes",
        )
        return None

    def _scalar(self, node: yaml.Node, keys: Keys) -> Any:
        line, key = node.start_mark.line + 1, dotted(keys)
        try:
            value = self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError, TypeError):
            self.report.error(line, key, f"{shown(node.value)} cannot be read as {_kind(node)}")
            return None
        if value is not None and not isinstance(value, str | bool | int | float):
            kind = _kind(node)
            self.report.error(line, key, f"{node.value} is read as {kind}: put it in quotes")
            return str(node.value)
        if not getattr(node, "style", None) and keys[:1] not in _FREE_TEXT:
            self._trap(str(node.value), value, line, key)
        return value

    def _trap(self, text: str, value: Any, line: int, key: str) -> None:
        if isinstance(value, str) and _FLOAT_LIKE.fullmatch(text):
            better = _yaml_float(text)
            self.report.error(
                line, key, f"{text} is read as text, not as a number: write {better}, or '{text}'"
            )
        elif isinstance(value, bool) and _BOOLEAN_LIKE.fullmatch(text):
            word = "true" if value else "false"
            self.report.warning(line, key, f"{text} is read as {word}: write {word}, or '{text}'")
        elif isinstance(value, int) and _OCTAL_LIKE.fullmatch(text):
            self.report.warning(line, key, f"{text} is read as octal, which is {value}")
        elif isinstance(value, int | float) and _BASE_60_LIKE.fullmatch(text):
            self.report.warning(
                line, key, f"{text} is read in base 60, which is {value}: write '{text}' for text"
            )


def _yaml_float(text: str) -> str:
    """Return the spelling of a float that YAML 1.1 reads: a dot and a signed exponent."""
    mantissa, _, exponent = text.replace("_", "").lower().partition("e")
    sign = "" if exponent.startswith(("+", "-")) else "+"
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{sign}{exponent}"


def _kind(node: yaml.Node) -> str:
    names = {"bool": "a boolean", "int": "an integer", "float": "a number", "null": "null"}
    names |= {"timestamp": "a date", "seq": "a list", "map": "a mapping"}
    return names.get(node.tag.rpartition(":")[2], f"the type {node.tag}")


def shown(value: Any) -> str:
    """Return a value as Python writes it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class Problem:
    """One mistake in a sweep file."""

    file: str
    line: int
    """Line in the file, counted from 1."""
    key: str
    """Dotted place in the file, such as ``parameters.optimizer.lr.values``; may be empty."""
    severity: Literal["error", "warning"]
    """An error keeps the file from running on some engine; a warning is worth a look."""
    message: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {self.severity}: {where}{self.message}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a mapping, for JSON."""
        return asdict(self)


@dataclass
class Report:
    """The problems found so far in one file."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def error(self, line: int, key: str, message: str) -> None:
        """Note a mistake that keeps the file from running."""
        self.problems.append(Problem(self.file, line, key, "error", message))

    def warning(self, line: int, key: str, message: str) -> None:
        """Note something that is probably not meant."""
        self.problems.append(Problem(self.file, line, key, "warning", message))

    def refuse(self, line: int, message: str) -> NoReturn:
        """Note a mistake after which nothing more can be said about the file, and raise it.

        Raises:
            UsageError: always.
        """
        self.error(line, "", message)
        self.raise_errors()
        raise AssertionError("unreachable: there is an error")

    @property
    def errors(self) -> list[Problem]:
        """The problems that are errors."""
        return [problem for problem in self.problems if problem.severity == "error"]

    def raise_errors(self) -> None:
        """Raise the first error, if there is one.

        Raises:
            UsageError: with the file, the line, the key, and how many more there are.
        """
        errors = self.errors
        if not errors:
            return
        first = errors[0]
        where = f"{first.key}: " if first.key else ""
        more = len(errors) - 1
        tail = f" (and {more} more: python -m mlmodeldev.sweep check {self.file})" if more else ""
        raise UsageError(f"{first.file}:{first.line}: {where}{first.message}{tail}")
