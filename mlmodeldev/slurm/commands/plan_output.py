"""Print a plan of very many trials piece by piece: as JSON, and as the command lines to run here.

Example::

    print_json(plan.trial_rows(), {"jobs": 3}, [plan.script])
    for line in local_lines(due, sweep_state):
        print(line)
"""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.project import project_root
from mlmodeldev.settings.overrides import to_overrides

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.slurm.trial_entries import TrialEntry

_AT_ONCE = 1000
"""Pieces that are written together."""
_MAX_SPELLED = 100_000
_OF_MANY = (list, dict)


def print_json(
    trials: Iterable[Mapping[str, Any]], more: Mapping[str, Any], script: Iterable[str]
) -> None:
    """Print one JSON object: ``trials``, more entries, and ``script``, whose pieces are joined."""
    _write('{\n "trials": [')
    rows = map(_RowText(), trials)
    _write(next(rows, ""))
    _write_all(f",\n{row}" for row in rows)
    _write("],\n" + "".join(f" {json.dumps(k)}: {json.dumps(v)},\n" for k, v in more.items()))
    _write(' "script": "')
    _write_all(json.dumps(piece)[1:-1] for piece in script)
    _write('"\n}\n')


class _RowText:
    """Writes a trial's row as `json.dumps` does; what trials have in common is spelled once."""

    def __init__(self) -> None:
        # by type, for 1, 1.0 and True are one key of a dictionary
        self._spelled: dict[tuple[str, type], dict[Any, str]] = {}

    def __call__(self, row: Mapping[str, Any]) -> str:
        own = ", ".join([self._entry(key, value) for key, value in row["overrides"].items()])
        # an identity has no character that JSON would escape
        return (
            f'{{"id": "{row["id"]}", "overrides": {{{own}}}, {self._entry("state", row["state"])}}}'
        )

    def _entry(self, key: str, value: Any) -> str:
        kind = (key, type(value))
        spelled = self._spelled.get(kind)
        if spelled is None:
            spelled = self._spelled[kind] = {}
        if not value or kind[1] in _OF_MANY:  # 0.0 is not -0.0
            return f"{json.dumps(key)}: {json.dumps(value)}"
        text = spelled.get(value)
        if text is None:
            text = f"{json.dumps(key)}: {json.dumps(value)}"
            if len(spelled) < _MAX_SPELLED:
                spelled[value] = text
        return text


def print_all(pieces: Iterable[str]) -> None:
    """Print texts one after the other, with nothing between them."""
    _write_all(pieces)


def _write(text: str) -> None:
    sys.stdout.write(text)


def _write_all(pieces: Iterable[str]) -> None:
    ahead = iter(pieces)
    while text := "".join(itertools.islice(ahead, _AT_ONCE)):
        sys.stdout.write(text)


def local_lines(due: Sequence[TrialEntry], sweep_state: SweepState) -> Iterator[str]:
    """Yield the command line of each trial, for a shell."""
    from mlmodeldev.sweep.loading import trial_arguments

    start = sweep_state.starter(project_root())
    if start is None:
        yield from _trainer_lines(due, sweep_state)
        return
    foreign = sweep_state.sweep.invocation.is_foreign  # which is told of no place
    for entry in due:
        places = [] if foreign else trial_arguments({}, entry.folder, sweep_state.overrides)
        yield shlex.join(start.line(entry.folder, entry.trial.overrides, places)) + "\n"


def _trainer_lines(due: Sequence[TrialEntry], sweep_state: SweepState) -> Iterator[str]:
    """Yield what `trial_arguments` gives; what trials have in common is spelled once."""
    if not due:
        return
    from mlmodeldev.sweep.loading import trial_arguments

    spelled: dict[tuple[Any, ...], str] = {}
    program = sweep_state.sweep.invocation.program
    begin = shlex.join(["python", program, *sweep_state.overrides])
    *places, _ = trial_arguments({}, due[0].folder)
    end = f"{shlex.join(places)} artefacts.trial="
    for entry in due:
        own = (_spelled(key, value, spelled) for key, value in entry.trial.overrides.items())
        yield f"{' '.join((begin, *own))} {end}{entry.trial.id}\n"


def _spelled(key: str, value: Any, spelled: dict[tuple[Any, ...], str]) -> str:
    if isinstance(value, list | dict):
        return shlex.join(to_overrides({key: value}))
    kind = (key, type(value), value)
    text = spelled.get(kind)
    if text is None:
        text = shlex.join(to_overrides({key: value}))
        if len(spelled) < _MAX_SPELLED:
            spelled[kind] = text
    return text
