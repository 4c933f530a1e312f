"""Start a sweep's trials as its ``command`` says: processes, with their values in their folders.

Example::

    start = starter(sweep.invocation, sweep.call, fixed=["cluster=debug"])
    if start:                                   # None: forks do the same
        task = start(task, trial.overrides)
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.overrides import FILE_VARIABLE
from mlmodeldev.sweep.invocation import TRAINER, Invocation, Kind, TrialCall
from mlmodeldev.trial.signals import STOP_NOTE_VARIABLE
from mlmodeldev.trial.task import TrialTask

Start = Callable[[TrialTask, Mapping[str, Any]], TrialTask]
"""Takes a trial as a fork and the sweep's values; returns the trial as it is to be started."""

_PLACES = ("artefacts.", "cluster", "hydra")
PARAMETERS = "wandb-parameters"
"""Name, before its ending, of the files in a trial's folder that hold the sweep's values."""


class Starter:
    """Starts trials as a sweep's ``command`` says.

    Args:
        invocation: of the sweep.
        call: returns what a trial of these values is called with.
    """

    def __init__(
        self, invocation: Invocation, call: Callable[[Mapping[str, Any]], TrialCall]
    ) -> None:
        self.invocation, self.call = invocation, call

    def line(
        self, folder: Path, values: Mapping[str, Any], places: Sequence[str] = ()
    ) -> list[str]:
        """Return the command line of the trial in a folder.

        Args:
            values: the trial's own.
            places: more settings of a trainer, such as those that say where the trial lies.
        """
        return self.invocation.line(self.call(values), folder / f"{PARAMETERS}.json", places)

    def __call__(self, task: TrialTask, values: Mapping[str, Any]) -> TrialTask:
        """Return the trial as a process of this command; its values are written to its folder."""
        file = _write_parameters(task.folder, self.call(values).values)
        note = task.environment.get(STOP_NOTE_VARIABLE)
        foreign = self.invocation.is_foreign
        return replace(
            task,
            command=self.line(task.folder, values, task.overrides),
            foreign=foreign,
            environment={**task.environment, FILE_VARIABLE: str(file)},
            stop_file=Path(note) if note and foreign else None,
            telling=signal.SIGTERM,
        )


def starter(
    invocation: Invocation,
    call: Callable[[Mapping[str, Any]], TrialCall],
    fixed: Sequence[str] = (),
) -> Starter | None:
    """Return how the trials of a sweep are started; None where forks do the same.

    Args:
        invocation: of the sweep.
        call: returns what a trial of these values is called with.
        fixed: settings of every trial from the command line.

    Raises:
        UsageError: an unknown macro; settings of trainer.py for another program.
    """
    invocation.check()
    if invocation.kind is Kind.FORK:
        return None
    others = [item for item in fixed if not item.startswith(_PLACES)]
    if others and invocation.is_foreign:
        raise UsageError(
            f"{others[0]}: settings of every trial are for {TRAINER}, not {invocation.name}"
        )
    return Starter(invocation, call)


def _write_parameters(folder: Path, values: Mapping[str, Any]) -> Path:
    """Write the values as ``wandb agent`` does; ``wandb.init`` takes its configuration from it."""
    import yaml

    from mlmodeldev.atomic import write_text

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{PARAMETERS}.yaml"
    text = "wandb_version: 1"
    if values:
        wrapped = {key: {"value": value} for key, value in values.items()}
        text += "\n\n" + yaml.safe_dump(wrapped, allow_unicode=True, sort_keys=False)
    write_text(file, text)
    write_text(file.with_suffix(".json"), json.dumps(dict(values)))
    return file
