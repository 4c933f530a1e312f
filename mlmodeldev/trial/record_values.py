"""What a record may hold: values of the types that its readers count on; others are left out.

A record is a file that anybody may have edited, a disk may have damaged, or a later version may
write in another way. An entry of another type than ours counts as one that is not there.

Example::

    usable({"state": "done", "epoch": "x", "mine": 1})       # {"state": "done", "mine": 1}
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

MOST_SECONDS = 1e11
"""Of times and durations; some three thousand years."""
_MOST_NUMBER = 2**53
_LONGEST_TEXT = 100_000


def usable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries whose values are of their types; entries without a type stay."""
    kept = _fitting(record, _KINDS)
    for name, kinds in _INSIDE.items():
        if kept.get(name):
            kept[name] = _fitting(kept[name], kinds)
    for name in _OF_NUMBERS:
        if kept.get(name):
            kept[name] = {key: value for key, value in kept[name].items() if _is_number(value)}
    return kept


def loads(text: str) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is none, or nested more deeply than can be read.
    """
    try:
        content = json.loads(text)
        if "\\ud" in text.lower():  # half a letter is JSON, and no file takes it
            content = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return content


def _fitting(values: Mapping[str, Any], kinds: Mapping[str, _Kind]) -> dict[str, Any]:
    """Return the entries of their kind; None is of every one."""
    kept = {}
    for name, value in values.items():
        if value is None or kinds.get(name, _any)(value):
            kept[name] = value
    return kept


_Kind = Callable[[Any], bool]


def _any(value: Any) -> bool:
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < _LONGEST_TEXT


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < 300 and value.isprintable()


def _is_number(value: Any) -> bool:
    """A float, NaN and infinity among them, or an integer that is one."""
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= _MOST_NUMBER)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_NUMBER


def _is_time(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and 0 <= value < MOST_SECONDS


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_place(value: Any) -> bool:
    """Entity and project."""
    return (
        isinstance(value, list) and len(value) == 2 and all(v is None or _is_word(v) for v in value)
    )


def _is_path(value: Any) -> bool:
    """Entity, project and run."""
    return _is_word(value) and value.count("/") == 2


def _is_metric(value: Any) -> bool:
    return isinstance(value, dict) and _is_word(value.get("name"))


_TIMES = ("created", "begun", "updated", "seconds", "lease")
_WORDS = (
    "id",
    "sweep",
    "state",
    "token",
    "wandb_id",
    "wandb_sweep",
    "wandb_entity",
    "sha",
    "source",
)
_MAPPINGS = ("owner", "slurm", "test", "usage", "overrides", "data", "software", "parent", "code")
_KINDS: dict[str, _Kind] = {
    **dict.fromkeys(_TIMES, _is_time),
    **dict.fromkeys((*_WORDS, "wandb_project"), _is_word),
    **dict.fromkeys(_MAPPINGS, _is_mapping),
    **dict.fromkeys(("attempts", "epoch", "epochs"), _is_count),
    **dict.fromkeys(("dirty",), _is_flag),
    **dict.fromkeys(("reason", "remote"), _is_text),
    "metric": _is_metric,
    "wandb_place": _is_place,
    "wandb_path": _is_path,
}
_OF_NUMBERS = ("test", "usage")
_INSIDE: dict[str, dict[str, _Kind]] = {
    "owner": {"host": _is_word, "pid": _is_count, "token": _is_word},
    "metric": {"mode": _is_word, "value": _is_number, "epoch": _is_count},
    "data": {"inputs": _is_mapping, "dvc": _is_list},
    "slurm": dict.fromkeys(
        ("job_id", "array_job_id", "array_task_id", "restart_count", "job_partition"), _is_word
    ),
}
