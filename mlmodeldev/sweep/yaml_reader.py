"""Read a sweep file's YAML as plain data, with the line of every key and value.

What YAML 1.1 makes of a file is what W&B sends, so the traps of YAML 1.1 are found here: text
that only looks like a number (``1e-5``), ``off`` as a boolean, a date, a key given twice.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mlmodeldev.secrets.patterns import find
from mlmodeldev.secrets.refusal import ADVICE
from mlmodeldev.sweep.document import Document, Keys, shown

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


def read_file(path: str | Path, document: Document) -> None:
    """Fill a document from a YAML file; traps of single values are noted in it.

    Raises:
        UsageError: the file cannot be read, is too large, or is no YAML.
    """
    read_text(_file_text(Path(path), document), document)


def read_text(text: str, document: Document) -> None:
    """Fill a document from YAML.

    Raises:
        UsageError: the text is no YAML, or holds a secret.
    """
    key = next(find(text), None)
    if key:
        document.refuse(key.line, f"holds a key ({key.kind}); {ADVICE}")
    root = _compose(text, document)
    document.source = text
    if root is not None:
        document.data = _Builder(document).build(root, (), 0)


def _file_text(path: Path, document: Document) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        document.refuse(1, f"cannot be read: {error.strerror or error}")
    except ValueError:
        document.refuse(1, "is no text in UTF-8, so no sweep file")
    if len(raw) > MAX_BYTES:
        document.refuse(1, f"is larger than {MAX_BYTES // 10**6} MB, so no sweep file")
    return text


def _compose(text: str, document: Document) -> yaml.Node | None:
    try:
        _refuse_deep(text, document)
        return yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        document.refuse(_error_line(error), _error_text(error))
    except (RecursionError, ValueError, OverflowError) as error:
        document.refuse(1, f"is no valid YAML: {error}")


def _refuse_deep(text: str, document: Document) -> None:
    # The composer recurses: a deep nest would overflow the stack, perhaps out of `except`'s reach.
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                line = event.start_mark.line if event.start_mark else 0
                document.refuse(line + 1, f"is nested more than {_MAX_DEPTH} levels deep")
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

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0
        self.scalars = yaml.SafeLoader("")

    def build(self, node: yaml.Node, keys: Keys, depth: int) -> Any:
        self.nodes += 1
        line = _line(node)
        if self.nodes > _MAX_NODES or depth > _MAX_DEPTH:
            message = "expands to too much: an alias that contains itself, or aliases of aliases"
            self.document.refuse(line, message)
        self.document.lines.setdefault(keys, line)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            self.document.error(keys, f"the tag {node.tag} is not allowed", line)
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
            here, line = (*keys, key), _line(key_node)
            if key in data:
                first = self.document.line(here)
                self.document.error(here, f"given twice, first in line {first}", line)
                continue
            self.document.lines[here] = line
            data[key] = self.build(value_node, here, depth + 1)
        return merged | data

    def _merged(self, node: yaml.Node, keys: Keys, depth: int) -> dict[str, Any]:
        value = self.build(node, keys, depth + 1)
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            message = "<<: takes a mapping or a list of mappings"
            self.document.error(keys, message, _line(node))
            return {}
        merged: dict[str, Any] = {}
        for part in parts:
            merged = part | merged
        return merged

    def _key(self, node: yaml.Node, keys: Keys) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return str(node.value)
        given = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        message = f"the key {given} is read as {_kind(node)}, not as text: put it in quotes"
        self.document.error(keys, message, _line(node))
        return None

    def _scalar(self, node: yaml.Node, keys: Keys) -> Any:
        line = _line(node)
        try:
            value = self.scalars.construct_object(node)
            str(value)  # an integer in another base may be longer than Python writes
        except (yaml.YAMLError, ValueError, OverflowError, TypeError):
            self.document.error(keys, f"{shown(node.value)} cannot be read as {_kind(node)}", line)
            return None
        if value is not None and not isinstance(value, _SCALARS):
            kind = _kind(node)
            self.document.error(keys, f"{node.value} is read as {kind}: put it in quotes", line)
            return str(node.value)
        if not getattr(node, "style", None) and keys[:1] not in _FREE_TEXT:
            self._report_trap(str(node.value), value, keys, line)
        return value

    def _report_trap(self, text: str, value: Any, keys: Keys, line: int) -> None:
        if isinstance(value, str) and _FLOAT_LIKE.fullmatch(text):
            self.document.number_like[keys] = _yaml_float(text)  # who reads it knows what it is
        elif isinstance(value, bool) and _BOOLEAN_LIKE.fullmatch(text):
            word = "true" if value else "false"
            message = f"{text} is read as {word}: write {word}, or '{text}'"
            self.document.warning(keys, message, line)
        elif isinstance(value, int) and _OCTAL_LIKE.fullmatch(text):
            self.document.warning(keys, f"{text} is read as octal, which is {value}", line)
        elif isinstance(value, int | float) and _BASE_60_LIKE.fullmatch(text):
            message = f"{text} is read in base 60, which is {value}: write '{text}' for text"
            self.document.warning(keys, message, line)


_SCALARS = (str, bool, int, float)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(node: yaml.Node) -> str:
    names = {"bool": "a boolean", "int": "an integer", "float": "a number", "null": "null"}
    names |= {"timestamp": "a date", "seq": "a list", "map": "a mapping"}
    return names.get(node.tag.rpartition(":")[2], f"the type {node.tag}")


def _yaml_float(text: str) -> str:
    """Return the spelling of a float that YAML 1.1 reads: a dot and a signed exponent."""
    mantissa, _, exponent = text.replace("_", "").lower().partition("e")
    sign = "" if exponent.startswith(("+", "-")) else "+"
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{sign}{exponent}"
