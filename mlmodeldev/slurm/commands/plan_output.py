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
    from mlmodeldev.slurm.sweep_state import SweepState, TrialEntry

_AT_ONCE = 1000
"""Pieces that are written together."""
_MAX_SPELLED = 100_000


def print_json(
    trials: Iterable[Mapping[str, Any]], more: Mapping[str, Any], script: Iterable[str]
) -> None:
    """Print one JSON object: ``trials``, more entries, and ``script``, whose pieces are joined."""
    _write('{\n "trials": [')
    rows = (json.dumps(row) for row in trials)
    _write(next(rows, ""))
    _write_all(f",\n{row}" for row in rows)
    _write("],\n" + "".join(f" {json.dumps(k)}: {json.dumps(v)},\n" for k, v in more.items()))
    _write(' "script": "')
    _write_all(json.dumps(piece)[1:-1] for piece in script)
    _write('"\n}\n')


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
    for entry in due:
        places = trial_arguments({}, entry.folder, sweep_state.overrides)
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
