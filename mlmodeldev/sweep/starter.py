"""How the trials of a W&B sweep are started: as forks of ours, or as the sweep's ``command`` says.

A sweep of trainer.py whose command hands the values over and does nothing else runs in forks of a
warm process. Any other command, and any other program, runs as a process of its own, with the
macros and the variables that ``wandb agent`` gives it.

Example::

    start = starter(sweep.config)               # None: forks
    source = AgentSource(sweep, runs_dir, start=start)
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.overrides import FILE_VARIABLE
from mlmodeldev.sweep.lint_trainer import DEFAULT_COMMAND, HYDRA, HYPHENS, macro_message
from mlmodeldev.tracking.wandb_stop import NOTE_VARIABLE
from mlmodeldev.trial.task import TrialTask

Start = Callable[[TrialTask, Mapping[str, Any]], TrialTask]
"""Takes a trial as a fork and the sweep's values; returns the trial as it is to be started."""

TRAINER = "trainer.py"
_PLACES = ("artefacts.", "cluster", "hydra")
PARAMETERS = "wandb-parameters"
"""Name, before its ending, of the files in a trial's folder that hold the sweep's values."""


class Starter:
    """Starts trials as a sweep's ``command`` says.

    Args:
        command: of the sweep.
        program: likewise.

    Attributes:
        hydra: whether it is trainer.py all the same, which is told besides where its trial lies.

    Raises:
        UsageError: an unknown macro.
    """

    def __init__(self, command: Sequence[str], program: str) -> None:
        for item in command:
            if message := macro_message(item):
                raise UsageError(f"the sweep's command: {message}")
        self.command, self.program = command, program
        filled = _filled(command, {"program": [program]})
        self.hydra = any(Path(item).name == TRAINER for item in filled)

    def line(self, work: TrialTask, params: Mapping[str, Any]) -> list[str]:
        """Return a trial's command line."""
        file = work.folder / f"{PARAMETERS}.json"
        macros = {**_macros(params), "program": [self.program], "args_json_file": [str(file)]}
        line = _filled(self.command, macros)
        if self.hydra:
            line += [item for item in work.overrides if item.partition("=")[0] not in params]
        return line

    def __call__(self, work: TrialTask, params: Mapping[str, Any]) -> TrialTask:
        """Return the trial as a process of this command; its values are written to its folder."""
        file = _write_parameters(work.folder, params)
        note = work.environment.get(NOTE_VARIABLE)
        return replace(
            work,
            command=self.line(work, params),
            foreign=not self.hydra,
            environment={**work.environment, FILE_VARIABLE: str(file)},
            stop_file=Path(note) if note and not self.hydra else None,
            telling=signal.SIGTERM,
        )


def starter(config: Mapping[str, Any], fixed: Sequence[str] = ()) -> Starter | None:
    """Return how the trials of a sweep are started; None where forks of ours do the same.

    Args:
        config: the sweep's configuration.
        fixed: settings of every trial from the command line.

    Raises:
        UsageError: an unknown macro; settings of trainer.py for another program.
    """
    command = [str(item) for item in config.get("command") or DEFAULT_COMMAND]
    program = str(config.get("program") or TRAINER)
    if is_ours(command, program):
        return None
    start = Starter(command, program)
    others = [item for item in fixed if not item.startswith(_PLACES)]
    if others and not start.hydra:
        raise UsageError(f"{others[0]}: settings of every trial are for {TRAINER}, not {program}")
    return start


def runs_trainer(config: Mapping[str, Any]) -> bool:
    """Return whether a sweep's trials are what forks of trainer.py do."""
    command = [str(item) for item in config.get("command") or DEFAULT_COMMAND]
    return is_ours(command, str(config.get("program") or TRAINER))


def is_ours(command: Sequence[str], program: str) -> bool:
    """Return whether a command starts trainer.py with the sweep's values, and does nothing else."""
    if Path(program).name != TRAINER:
        return False
    head = [item for item in command[:-1] if item not in ("${env}", "${interpreter}")]
    values = {f"${{{name}}}" for name in ("args", *HYDRA, *HYPHENS, "args_json")}
    return head == ["${program}"] and command[-1] in values


def _filled(command: Sequence[str], macros: Mapping[str, list[str]]) -> list[str]:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command

    line: list[str] = []
    for item in create_sweep_command(list(command)):  # which fills ${envvar:NAME} in
        name = item[2:-1] if item.startswith("${") and item.endswith("}") else None
        line += [item] if name is None else macros.get(name, [])
    return line


def _macros(params: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what the macros of W&B stand for, by W&B's own function."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    known = create_sweep_command_args({"args": {k: {"value": v} for k, v in params.items()}})
    return {**known, "env": ["/usr/bin/env"], "interpreter": [sys.executable]}


def _write_parameters(folder: Path, params: Mapping[str, Any]) -> Path:
    """Write the values as ``wandb agent`` does; ``wandb.init`` takes its configuration from it."""
    from wandb.sdk.lib.config_util import save_config_file_from_dict

    from mlmodeldev.atomic import write_text

    file = folder / f"{PARAMETERS}.yaml"
    save_config_file_from_dict(str(file), {k: {"value": v} for k, v in params.items()})
    write_text(file.with_suffix(".json"), json.dumps(dict(params)))
    return file
