"""Lines of a search's journal: those that Optuna can read again, and others, which are passed over.

Optuna's reader stops for good at a line whose operation it does not have, or whose values are of
other types: so would every worker that ever opens the journal. Nothing is asked of a line but what
itself says, so that all readers pass over the same ones.

Example::

    parsed(b'{"op_code": 1, "worker_id": "a", "study_id": 0}\\n')     # the mapping
    parsed(b'{"op_code": 99, "worker_id": "a"}\\n')                   # None
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from optuna.distributions import json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the operation that a line holds; None: it is none that can be read."""
    try:
        entry = json.loads(line)
        operation = entry["op_code"]
        if type(operation) is not int or not isinstance(entry["worker_id"], str):
            return None
        _CHECKS[operation](entry)
    except Exception:  # whatever Optuna's own readers of the parts raise
        return None
    return dict(entry)


def _expect(is_right: bool) -> None:
    if not is_right:
        raise ValueError


def _study(entry: Mapping[str, Any]) -> None:
    _expect(type(entry["study_id"]) is int)


def _trial(entry: Mapping[str, Any]) -> None:
    _expect(type(entry["trial_id"]) is int)


def _new_study(entry: Mapping[str, Any]) -> None:
    _expect(isinstance(entry["study_name"], str) and len(entry["directions"]) > 0)
    for direction in entry["directions"]:
        StudyDirection(direction)


def _attribute(of: Callable[[Mapping[str, Any]], None], name: str) -> Any:
    def check(entry: Mapping[str, Any]) -> None:
        of(entry)
        _expect(isinstance(entry[name], dict) and len(entry[name]) == 1)

    return check


def _new_trial(entry: Mapping[str, Any]) -> None:
    _study(entry)
    distributions = {k: json_to_distribution(v) for k, v in entry.get("distributions", {}).items()}
    params = entry.get("params", {})
    for name, value in params.items():
        distributions[name].to_external_repr(_number(value))
    for name in ("user_attrs", "system_attrs", "intermediate_values"):
        _expect(isinstance(entry.get(name, {}), dict))
    FrozenTrial(  # which refuses what does not fit together
        number=0,
        trial_id=0,
        state=TrialState(entry.get("state", TrialState.RUNNING.value)),
        value=_number_or_none(entry.get("value")),
        values=_values(entry.get("values")),
        datetime_start=_time(entry["datetime_start"]),
        datetime_complete=_time(entry["datetime_complete"])
        if "datetime_complete" in entry
        else None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={
            int(step): _number(value)
            for step, value in entry.get("intermediate_values", {}).items()
        },
    )


def _parameter(entry: Mapping[str, Any]) -> None:
    _trial(entry)
    _expect(isinstance(entry["param_name"], str))
    distribution = json_to_distribution(entry["distribution"])
    distribution.to_external_repr(_number(entry["param_value_internal"]))


def _state(entry: Mapping[str, Any]) -> None:
    _trial(entry)
    _values(entry["values"])
    state = TrialState(entry["state"])
    if state == TrialState.RUNNING:
        _expect(_time(entry["datetime_start"]) is not None)
    elif state.is_finished():
        _expect(_time(entry["datetime_complete"]) is not None)


def _intermediate(entry: Mapping[str, Any]) -> None:
    _trial(entry)
    _expect(type(entry["step"]) is int)
    _number(entry["intermediate_value"])


def _number(value: Any) -> float:
    _expect(isinstance(value, int | float))
    return float(value)


def _number_or_none(value: Any) -> float | None:
    return None if value is None else _number(value)


def _values(values: Any) -> list[float] | None:
    _expect(values is None or isinstance(values, list))
    return None if values is None else [_number(value) for value in values]


def _time(text: Any) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone()


_CHECKS: dict[int, Callable[[Mapping[str, Any]], None]] = {
    0: _new_study,
    1: _study,  # deleted
    2: _attribute(_study, "user_attr"),
    3: _attribute(_study, "system_attr"),
    4: _new_trial,
    5: _parameter,
    6: _state,
    7: _intermediate,
    8: _attribute(_trial, "user_attr"),
    9: _attribute(_trial, "system_attr"),
}
"""By the numbers of Optuna's operations (JournalOperation)."""
