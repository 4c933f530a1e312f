"""Where the trial of given settings lies: its sweep's folder, and in it the trial's own.

Example::

    folder_of(settings)                                   # runs/digits/ab12cd34
    own_path(runs / "digits", {"optimizer.lr": 0.01})     # the same, of what differs alone
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.settings.identity import identity
from mlmodeldev.trial.agent_run import given_run, owner_of
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings


def folder_of(settings: Settings) -> Path:
    """Return where the trial of these settings lies, or will lie."""
    artefacts = settings.artefacts
    sweep = Path(artefacts.runs_dir).expanduser().absolute() / artefacts.sweep
    return sweep / artefacts.trial if artefacts.trial else own_path(sweep, settings.overrides)


def own_path(sweep: Path, overrides: Mapping[str, Any], run: str | None = None) -> Path:
    """Return where the trial of these overrides lies.

    A W&B sweep may draw one point twice. While the first run of it is under way the second gets a
    folder of its own; once it is done, its result is the second's too.

    Args:
        sweep: the sweep's folder.
        overrides: what was asked.
        run: id of the W&B run that an agent has given; None: the environment's, if any.
    """
    path = sweep / identity(overrides)
    given = given_run()
    run = run or (given.id if given else None)
    if run is None:
        return path
    second = path.with_name(f"{path.name}-{run}")
    owner = owner_of(sweep.parent, run)
    if owner not in (None, *(f"{sweep.name}/{each.name}" for each in (path, second))):
        return path  # the run is another trial's (`mlmodeldev.trial.agent_run`)
    record = read_record(path)
    other = record.get("wandb_id") not in (None, run) and record.get("state") not in _OVER
    return second if second.is_dir() or other else path


_OVER = ("done", "pruned")
