"""What the entries of ``trial.json`` may be; what a hand or another program has spoiled is named.

Example::

    sound_record({"state": "done", "metric": 5})
    # {"state": "done", "damaged": ["metric is 5, not an object"]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DAMAGED = "damaged"
"""Entry of a record as it is read: what is wrong with it, in words. It is never in the file."""
STATES = ("pending", "running", "interrupted", "done", "failed", "pruned")
MOST_SECONDS = 1e11
"""Of times and durations; some three thousand years."""
_LONGEST = 40
"""Characters shown of a wrong value."""
_MOST_NUMBER = 2**53
"""Of whole numbers, which other readers of JSON take for floats."""

Check = Callable[[Any], bool]


def parse_record(text: str) -> dict[str, Any] | None:
    """Return the object that a text holds as JSON; None where it holds none.

    Numbers of thousands of digits and brackets that are thousands deep are none of ours.
    """
    try:
        record = loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record else None


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


def read_text(file: Path) -> str:
    """Return a record's text; what is not UTF-8 makes it one that can't be parsed.

    Raises:
        OSError: it can't be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def sound_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are what they may be, and under ``damaged`` what others are.

    A trial whose state is none counts as failed: it is shown, and not begun again by itself.
    """
    wrong = faults(record)
    if not wrong:
        return dict(record)
    kept = {name: value for name, value in record.items() if name not in wrong}
    if "state" in wrong:
        kept["state"] = "failed"
        kept["reason"] = f"trial.json is damaged: {wrong['state']}"
    return {**kept, DAMAGED: list(wrong.values())}


def unreadable() -> dict[str, Any]:
    """Return what stands for a record that is none."""
    line = "no record of a trial can be read in it"
    return {"state": "failed", "reason": f"trial.json is damaged: {line}", DAMAGED: [line]}


def faults(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with a record, in words, by the entry's name."""
    wrong = {}
    for name, (check, what) in _ENTRIES.items():
        value = record.get(name)
        if value is not None and not check(value):
            wrong[name] = f"{name} is {repr(value)[:_LONGEST]}, not {what}"
    return wrong


# --- checks


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < 300 and value.isprintable()


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_NUMBER


def _is_number(value: Any) -> bool:
    """Whether it is one, or NaN: a metric may be."""
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= _MOST_NUMBER)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _is_time(value: Any) -> bool:
    return _is_finite(value) and 0 <= value < MOST_SECONDS


def _is_place(value: Any) -> bool:
    """Whether it is entity and project."""
    return (
        isinstance(value, list) and len(value) == 2 and all(v is None or _is_word(v) for v in value)
    )


def _is_path(value: Any) -> bool:
    """Whether it is entity, project and run."""
    return _is_word(value) and value.count("/") == 2


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _all(check: Check) -> Check:
    """Return a check of objects whose values pass another, or are null."""
    return lambda value: (
        isinstance(value, dict) and all(v is None or check(v) for v in value.values())
    )


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _has(**checks: Check) -> Check:
    """Return a check of objects of which some values must pass one, where they are there."""
    return lambda value: (
        isinstance(value, dict)
        and all(value.get(n) is None or check(value[n]) for n, check in checks.items())
    )


_is_owner = _has(host=_is_word, pid=_is_count, started=_is_count, token=_is_word)
_is_metric = _has(
    name=_is_word, mode=lambda v: v in ("max", "min"), value=_is_number, epoch=_is_count
)
_is_data = _has(inputs=_all(_is_text), dvc=_list_of(_is_object))

_TEXT, _FLAG, _COUNT = (_is_text, "a text"), (_is_flag, "true or false"), (_is_count, "a number")
_OBJECT = (_is_object, "an object")
_WORD = (_is_word, "a text of one line")
_TEXTS = (_all(_is_text), "an object of texts")
_SECONDS = (_is_time, "a number of seconds")

_ENTRIES: dict[str, tuple[Check, str]] = {
    "state": (lambda value: value in STATES, f"one of {', '.join(STATES)}"),
    **dict.fromkeys(("reason", "remote", "wandb_sweep", "wandb_entity", "wandb_project"), _TEXT),
    **dict.fromkeys(("id", "sweep", "token", "sha", "source", "wandb_id"), _WORD),
    "wandb_place": (_is_place, "entity and project"),
    "wandb_path": (_is_path, "entity, project and run"),
    **dict.fromkeys(("dirty", "stopped", "uploaded"), _FLAG),
    **dict.fromkeys(("attempts", "epoch", "epochs", "step", "version"), _COUNT),
    **dict.fromkeys(("created", "begun", "updated", "seconds", "lease"), _SECONDS),
    **dict.fromkeys(("code", "slurm"), _TEXTS),
    **dict.fromkeys(("overrides", "parent", "software"), _OBJECT),
    "owner": (_is_owner, "host, pid, started and token"),
    "metric": (_is_metric, "name, mode, value and epoch"),
    "test": (_all(_is_number), "an object of numbers"),
    "usage": (_all(_is_finite), "an object of numbers"),
    "data": (_is_data, "inputs and versions"),
    "earlier_code": (_list_of(_is_object), "a list of objects"),
}
