"""What the schema says, as files of settings with comments and as a table for the docs.

A setting is written once, in `mlmodeldev.settings.schema`; its YAML line and its row come from
there (``python -m mlmodeldev.settings``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlmodeldev.settings import schema
from mlmodeldev.settings.callback_schema import Callbacks
from mlmodeldev.settings.conf_files import LIBRARY_CONF
from mlmodeldev.settings.group import Group

BEGIN, END = "<!-- settings: written from the schema -->", "<!-- end of the settings -->"

_FILES: dict[str, tuple[type[Group], dict[str, Any]]] = {
    "artefacts/default": (schema.Artefacts, {"sweep": "${oc.env:WANDB_SWEEP_ID,single}"}),
    "optimizer/adamw": (schema.Optimizer, {}),
    "processing/default": (schema.Processing, {}),
    "training/default": (schema.Training, {}),
    "logger/clearml": (schema.ClearmlLogger, {}),
    "logger/csv": (schema.CsvLogger, {}),
    "logger/mlflow": (schema.MlflowLogger, {}),
    "logger/tensorboard": (schema.TensorboardLogger, {}),
    "logger/wandb": (schema.WandbLogger, {}),
    "callbacks/default": (Callbacks, {}),
    "cluster/base": (schema.Cluster, {"name": "base"}),
}
"""Files that hold all settings of a group, and what differs in one from the schema's defaults."""


def rendered_files() -> dict[Path, str]:
    """Return the text of each file that is written from the schema, by its path."""
    return {LIBRARY_CONF / f"{name}.yaml": _file(name) for name in _FILES}


def _file(name: str) -> str:
    group, changed = _FILES[name]
    lines = list(_lines(group, changed))
    if not name.startswith("logger/"):
        return "".join(f"{line}\n" for line in lines)
    tracker = name.partition("/")[2]
    if not lines:
        return f"{tracker}: {{}}  # {_first_line(group.__doc__)}\n"
    return "".join(f"{line}\n" for line in [f"{tracker}:", *(f"  {line}" for line in lines)])


def _lines(group: type[BaseModel], changed: dict[str, Any]) -> Iterator[str]:
    """Yield a group's settings as lines of YAML, each with its comment."""
    for name, field in group.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield f"{name}:  # {_first_line(field.description or inner.__doc__)}"
            yield from (f"  {line}" for line in _lines(inner, {}))
        else:
            yield f"{name}: {_yaml(changed.get(name, field.default))}  # {comment(field)}"


def comment(field: FieldInfo) -> str:
    """Return what a setting means, with the words that it may be."""
    text = _first_line(field.description).rstrip(".")
    choices = [str(word) for word in _choices(field.annotation)]
    missing = [word for word in choices if word not in text]
    return f"{text} ({' | '.join(choices)})" if missing else text


def _choices(annotation: Any) -> list[Any]:
    """Return the words of a Literal, wherever it stands in the annotation."""
    if str(get_origin(annotation)) == "typing.Literal":
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in _choices(part)]


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].replace("``", "").rstrip(".")


def _yaml(value: Any) -> str:
    """Write a default as one line of YAML."""
    if isinstance(value, str):
        return value
    return json.dumps(value)


def with_table(page: str) -> str:
    """Return a page with the table of settings between its two marks written anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return page
    return f"{before}{BEGIN}\n{_table()}{END}{after}"


def _table() -> str:
    rows = ["| setting | default | what |", "|---|---|---|"]
    for name, field in schema.Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            rows += _rows(name, field.annotation)
    return "".join(f"{row}\n" for row in rows)


def _rows(prefix: str, group: type[BaseModel]) -> Iterator[str]:
    for name, field in group.model_fields.items():
        inner = next(_parts(field.annotation), None)
        if inner is not None:
            yield from _rows(f"{prefix}.{name}", inner)
        else:
            text = comment(field).replace("|", "\\|")
            yield f"| `{prefix}.{name}` | `{_yaml(field.default)}` | {text} |"


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the group that a field holds, optional or not."""
    optional = () if get_origin(annotation) is dict else get_args(annotation)
    for part in (annotation, *optional):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part
