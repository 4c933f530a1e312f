"""The command line of ``slurm/SlurmTrain.py``: a sweep file to trials.

Example::

    python slurm/SlurmTrain.py                          run what is missing of sweep/config.yaml
    python slurm/SlurmTrain.py plan --json              what would run; nothing is started
    python slurm/SlurmTrain.py status --sweep sweep/random.yaml
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError, drop_output
from mlmodeldev.machine import keep_from_others
from mlmodeldev.secrets import guard_output, refuse_in_arguments
from mlmodeldev.trial.agent_run import leave_agent

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState

_HOME = "mlmodeldev.slurm.commands"
COMMANDS = {
    "submit": f"{_HOME}.launch",
    "plan": f"{_HOME}.launch",
    "status": f"{_HOME}.trials",
    "logs": f"{_HOME}.logs",
    "cancel": f"{_HOME}.trials",
    "retry": f"{_HOME}.launch",
    "collect": f"{_HOME}.trials",
    "clean": f"{_HOME}.trials",
    "prefetch": f"{_HOME}.prefetch",
    "sync": f"{_HOME}.wandb",
    "bridge": f"{_HOME}.wandb",
}
"""Sub-commands in the order of --help, with their modules (see `mlmodeldev.slurm.commands`)."""

DEFAULT = "submit"

SIGPIPE_STATUS = 128 + signal.SIGPIPE
"""Exit status where nobody reads on, as a shell gives it to what SIGPIPE has ended."""


def main(
    arguments: Sequence[str] | None = None,
    others: Mapping[str, str] | None = None,
    hooks: Mapping[str, str] | None = None,
) -> int:
    """Answer the command line; return the exit status.

    Args:
        arguments: the words after the program's name; None: this process's own.
        others: more sub-commands with their modules, of packages that this one does not know.
        hooks: modules by a function of theirs that gets the sweep: ``look_first`` before its
            trials are started, ``look_after`` once they were shown.
    """
    words = sys.argv[1:] if arguments is None else arguments
    commands = {**COMMANDS, **(others or {})}
    guard_output()
    keep_from_others()
    leave_agent()  # trials are this command's, not an agent's that the shell had to do with
    try:
        refuse_in_arguments(words)
        args = _parse(_with_action(words, commands), commands)
        args.hooks = {name: partial(_call, module, name) for name, module in (hooks or {}).items()}
        status = int(_attribute(commands[args.action], f"run_{args.action}")(args))
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"SlurmTrain.py: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        drop_output()
        return SIGPIPE_STATUS


def _call(module: str, name: str, sweep_state: SweepState) -> None:
    _attribute(module, name)(sweep_state)


def _with_action(words: Sequence[str], commands: Mapping[str, str]) -> list[str]:
    """Put the default action in front where none is named."""
    if words and (words[0] in commands or words[0] in ("-h", "--help")):
        return list(words)
    return [DEFAULT, *words]


def _parse(words: Sequence[str], commands: Mapping[str, str]) -> argparse.Namespace:
    """Read the command line; settings may stand before, between and behind the options."""
    parser = _parser(commands)
    args, more = parser.parse_known_args(words)
    wrong = [item for item in more if item.startswith("-") or "=" not in item]
    if wrong or (more and not hasattr(args, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(wrong or more)}")
    if more:
        args.overrides = [*args.overrides, *more]
    return args


def _parser(commands: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="SlurmTrain.py",
        description="Run the trials that a sweep file declares: on the cluster where there is"
        " Slurm, else on this machine.",
        epilog="SlurmTrain.py ACTION --help tells of each. Exit status: 0 done, 1 a trial failed,"
        " 2 bad input, 75 interrupted.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for name, module in commands.items():
        text = _attribute(module, f"{name.upper()}_HELP")
        options = actions.add_parser(name, help=text, description=text)
        _attribute(module, f"add_{name}_options")(options)
    return parser


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
