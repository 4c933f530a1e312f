"""The W&B run that an agent has given this process, and whether it is this trial's.

A run belongs to the trial that took it first. A script under ``wandb agent`` may train twice, and
a shell may have the variables of an agent that is long gone: the second trial would write over the
rows of the first. So who took a run is noted in ``<runs_dir>/.wandb-runs/<run>``.

Example::

    if run := given_run():
        take_run(folder, run.id) or leave_agent()
    environment = without_agent(os.environ)         # of a trial that no agent has given
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlmodeldev.atomic import write_text, writing_to
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import ProcessLock
from mlmodeldev.settings.overrides import FILE_VARIABLE
from mlmodeldev.trial.signals import STOP_NOTE_VARIABLE

AGENT_VARIABLES = (
    "WANDB_RUN_ID",
    "WANDB_SWEEP_ID",
    FILE_VARIABLE,
    "WANDB_RESUME",
    STOP_NOTE_VARIABLE,
)
"""What an agent gives one trial; no other may inherit it."""
RUN_ID = r"[^/\\#?%:\s.\x00-\x1f][^/\\#?%:\x00-\x1f]{0,127}"
"""A run's id as W&B allows it; no path, for it becomes part of files' names."""
OWNERS = ".wandb-runs"
"""Folder beside the sweeps': which trial each given run belongs to."""

_LOCK_SECONDS = 60.0
_ONLY_IN_WANDB = "wandb:"
_TRIAL = r"(?!\.\.?/)[^/\0]+/(?!\.\.?$)[^/\0]+"


class GivenRun(NamedTuple):
    """A run that an agent has given, and its sweep."""

    id: str
    sweep: str


def given_run() -> GivenRun | None:
    """Return the run that an agent gave this process, if one did."""
    run, sweep = os.environ.get("WANDB_RUN_ID"), os.environ.get("WANDB_SWEEP_ID")
    return GivenRun(run, sweep) if run and sweep else None


def run_variables(
    entity: str, project: str, sweep: str, run: str, stop_note: str
) -> dict[str, str]:
    """Return what an agent of ours gives the trial of a run.

    Args:
        entity: whose project it is; empty: the default of the trial's key.
        project: of the sweep.
        sweep: its id.
        run: its id.
        stop_note: file that the trial looks for; where it is, W&B wants the trial to end.
    """
    variables = {
        "WANDB_RUN_ID": run,
        "WANDB_SWEEP_ID": sweep,
        "WANDB_PROJECT": project,
        "WANDB_RESUME": "allow",
        STOP_NOTE_VARIABLE: stop_note,
    }
    return {**variables, **({"WANDB_ENTITY": entity} if entity else {})}


def without_agent(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without those that an agent gives one trial."""
    return {name: value for name, value in environment.items() if name not in AGENT_VARIABLES}


def leave_agent() -> None:
    """Forget what an agent gave this process."""
    for name in AGENT_VARIABLES:
        os.environ.pop(name, None)


def _names_a_file(run: str) -> bool:
    try:
        return bool(re.fullmatch(RUN_ID, run) and os.fsencode(run))
    except UnicodeEncodeError:
        return False


def owner_of(runs_dir: Path, run: str) -> str | None:
    """Return the trial that a run belongs to, ``<sweep>/<trial>``; None: nobody's that is there."""
    if not _names_a_file(run):
        return None
    try:
        owner = (runs_dir / OWNERS / run).read_text(encoding="utf-8").strip()
        if owner.startswith(_ONLY_IN_WANDB):
            return owner.removeprefix(_ONLY_IN_WANDB)
        is_there = bool(re.fullmatch(_TRIAL, owner)) and (runs_dir / owner).is_dir()
    except (OSError, ValueError):  # no text, or no name that a file may have
        return None
    return owner if is_there else None


def take_run(folder: Path, run: str) -> bool:
    """Make a run this trial's, unless it is another's; return whether it is this trial's.

    Args:
        folder: the trial's.
        run: its id.

    Raises:
        UsageError: it can't be noted.
    """
    runs_dir, name = folder.parents[1], f"{folder.parent.name}/{folder.name}"
    if not _names_a_file(run):
        return True  # W&B will refuse it by itself
    if (owner := owner_of(runs_dir, run)) is not None:
        return owner == name
    file = runs_dir / OWNERS / run
    with writing_to(file), _lock(file.parent):  # one of two at once
        owner = owner_of(runs_dir, run)
        if owner is None:
            write_text(file, name)
    return owner in (None, name)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    from filelock import Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = ProcessLock(folder / ".lock", timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"{lock.path}: another process has kept this lock for {_LOCK_SECONDS:.0f} s"
        ) from None
    try:
        yield
    finally:
        lock.release()


def give_run(runs_dir: Path, run: str, owner: str) -> None:
    """Note that a run is another trial's, of which only W&B knows."""
    if _names_a_file(run):
        (runs_dir / OWNERS).mkdir(parents=True, exist_ok=True)
        write_text(runs_dir / OWNERS / run, f"{_ONLY_IN_WANDB}{owner}")


def entries_of_run(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run that an agent gave, as entries of a trial's record, if it is this trial's.

    Args:
        path: the trial's folder.
        record: what it has so far.
    """
    run = given_run()
    if run is None:
        return {}
    if take_run(path, run.id):
        return {"wandb_id": run.id, "wandb_sweep": run.sweep}
    owner = owner_of(path.parents[1], run.id)
    print(f"Weights & Biases: run {run.id} is that of trial {owner}; this one gets its own")
    leave_agent()
    place = {"wandb_place": [os.environ.get("WANDB_ENTITY"), os.environ.get("WANDB_PROJECT")]}
    if record.get("wandb_id") == run.id:
        return {**place, "wandb_id": None, "wandb_sweep": None}
    return place
