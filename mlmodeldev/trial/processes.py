"""Trials that need a process of their own: those of several processes, which no fork should start.

Example::

    own_command(Work("ab12", folder, ["training.devices=2"]), root)
    # [".../python", ".../trainer.py", "training.devices=2"]

A fork of a warm process trains alone. Where ``training.devices`` or ``training.num_nodes`` asks for
more, or ``training.strategy`` is not left to Lightning, the trial is started as by hand, and starts
the others itself (`mlmodeldev.training.ranks`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError

if TYPE_CHECKING:
    from mlmodeldev.trial.task import Work

ALONE: dict[str, tuple[Any, ...]] = {
    "training.devices": ("auto", 1),
    "training.num_nodes": ("auto", 1),
    "training.strategy": ("auto",),
}
"""Settings of a trial that a fork can train; any other value needs a process of its own."""


def own_command(work: Work, root: Path) -> list[str] | None:
    """Return the command line of a trial that needs a process of its own; None for a fork.

    Args:
        work: the trial.
        root: the folder that its program lies in.
    """
    if not needs_processes(work.overrides):
        return None
    program = root / Path(*work.program.split(".")).with_suffix(".py")
    return [sys.executable, str(program), *work.overrides]


def needs_processes(overrides: Sequence[str]) -> bool:
    """Return whether a trial of these overrides is one of several processes."""
    chosen = tuple(item for item in overrides if "." not in item.partition("=")[0])
    found = {**_chosen(chosen), **_given(overrides)}
    return any(found[key] not in alone for key, alone in ALONE.items())


def _given(overrides: Sequence[str]) -> dict[str, Any]:
    from mlmodeldev.settings.overrides import parse_overrides

    named = [item for item in overrides if item.lstrip("+").partition("=")[0] in ALONE]
    try:
        return parse_overrides(named) if named else {}
    except UsageError:
        return {}  # what is wrong with it the trial will say


@functools.lru_cache(maxsize=32)
def _chosen(groups: tuple[str, ...]) -> dict[str, Any]:
    """Return what the chosen files of ``conf/`` say, such as ``experiment=NAME``."""
    from mlmodeldev.settings.composition import compose_settings

    try:
        training = compose_settings(groups).training
    except UsageError:
        return dict.fromkeys(ALONE, "auto")
    return {key: getattr(training, key.rpartition(".")[2]) for key in ALONE}
