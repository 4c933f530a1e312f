"""How the trials of a W&B sweep are started: as forks of ours, or as the sweep's ``command`` says.

A sweep of trainer.py whose command hands the values over and does nothing else runs in forks of a
process that has imported everything. Any other command, and any other program, runs as a process
of its own, with the macros and the variables that ``wandb agent`` gives it.
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
from mlmodeldev.sweep.lint_command import DEFAULT_COMMAND, HYDRA, HYPHENS, macro_message
from mlmodeldev.trial.signals import STOP_NOTE_VARIABLE
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
        hydra: whether it is trainer.py all the same, which gets its trial's folder as settings.

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

    def line(self, task: TrialTask, params: Mapping[str, Any]) -> list[str]:
        """Return a trial's command line."""
        file = task.folder / f"{PARAMETERS}.json"
        macros = {**_macros(params), "program": [self.program], "args_json_file": [str(file)]}
        line = _filled(self.command, macros)
        if self.hydra:
            line += [item for item in task.overrides if item.partition("=")[0] not in params]
        return line

    def __call__(self, task: TrialTask, params: Mapping[str, Any]) -> TrialTask:
        """Return the trial as a process of this command; its values are written to its folder."""
        file = _write_parameters(task.folder, params)
        note = task.environment.get(STOP_NOTE_VARIABLE)
        return replace(
            task,
            command=self.line(task, params),
            foreign=not self.hydra,
            environment={**task.environment, FILE_VARIABLE: str(file)},
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
    command, program = _command_of(config)
    if is_ours(command, program):
        return None
    start = Starter(command, program)
    others = [item for item in fixed if not item.startswith(_PLACES)]
    if others and not start.hydra:
        raise UsageError(f"{others[0]}: settings of every trial are for {TRAINER}, not {program}")
    return start


def runs_trainer(config: Mapping[str, Any]) -> bool:
    """Return whether a sweep's trials are what forks of trainer.py do."""
    return is_ours(*_command_of(config))


def _command_of(config: Mapping[str, Any]) -> tuple[list[str], str]:
    command = [str(item) for item in config.get("command") or DEFAULT_COMMAND]
    return command, str(config.get("program") or TRAINER)


def is_ours(command: Sequence[str], program: str) -> bool:
    """Return whether a command starts trainer.py with the sweep's values, and does nothing else."""
    if Path(program).name != TRAINER:
        return False
    head = [item for item in command[:-1] if item not in ("${env}", "${interpreter}")]
    values = {f"${{{name}}}" for name in ("args", *HYDRA, *HYPHENS, "args_json")}
    return head == ["${program}"] and command[-1] in values


def _filled(command: Sequence[str], macros: Mapping[str, list[str]]) -> list[str]:
    fill_environment, _ = wandb_macros()
    line: list[str] = []
    for item in fill_environment(list(command)):
        name = item[2:-1] if item.startswith("${") and item.endswith("}") else None
        line += [item] if name is None else macros.get(name, [])
    return line


def _macros(params: Mapping[str, Any]) -> dict[str, list[str]]:
    _, argument_forms = wandb_macros()
    forms = argument_forms({"args": {k: {"value": v} for k, v in params.items()}})
    return {**forms, "env": ["/usr/bin/env"], "interpreter": [sys.executable]}


def wandb_macros() -> tuple[
    Callable[[list[str]], list[str]], Callable[[dict[str, Any]], dict[str, Any]]
]:
    """Return W&B's own functions that fill a command: environment variables, forms of the values.

    They are no part of its public interface, so they are imported here alone; what W&B makes of a
    value (``--flag``, ``key=None``) is not for us to imitate.
    """
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    return create_sweep_command, create_sweep_command_args


def _write_parameters(folder: Path, params: Mapping[str, Any]) -> Path:
    """Write the values as ``wandb agent`` does; ``wandb.init`` takes its configuration from it."""
    import yaml

    from mlmodeldev.atomic import write_text

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{PARAMETERS}.yaml"
    text = "wandb_version: 1"
    if params:
        values = {key: {"value": value} for key, value in params.items()}
        text += "\n\n" + yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
    write_text(file, text)
    write_text(file.with_suffix(".json"), json.dumps(dict(params)))
    return file
