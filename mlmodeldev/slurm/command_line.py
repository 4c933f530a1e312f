"""The command line of ``slurm/SlurmTrain.py``: a sweep file to trials.

Example::

    python slurm/SlurmTrain.py                          run what is missing of sweep/config.yaml
    python slurm/SlurmTrain.py plan --json              what would run; nothing is started
    python slurm/SlurmTrain.py status --sweep sweep/random.yaml
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError
from mlmodeldev.secrets import guard_output, refuse_in_arguments

COMMANDS = {
    **dict.fromkeys(("submit", "plan"), "launch"),
    "status": "trials",
    "logs": "logs",
    "cancel": "trials",
    "retry": "launch",
    **dict.fromkeys(("collect", "clean"), "trials"),
    "prefetch": "prepare",
    **dict.fromkeys(("sync", "bridge"), "wandb"),
    "doctor": "prepare",
}
"""Sub-commands in the order of --help, with their modules in `mlmodeldev.slurm.commands`.

A module has for each ``NAME_HELP``, ``add_NAME_options`` and ``run_NAME``; add yours here.
"""

DEFAULT = "submit"


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    guard_output()
    try:
        refuse_in_arguments(given)
        asked = _parse(_with_action(given))
        return int(_part(asked.action, "run_{}")(asked))
    except UsageError as error:
        print(f"SlurmTrain.py: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _parse(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line; settings may stand before, between and behind the options."""
    parser = _parser()
    asked, more = parser.parse_known_args(given)
    wrong = [item for item in more if item.startswith("-") or "=" not in item]
    if wrong or (more and not hasattr(asked, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(wrong or more)}")
    if more:
        asked.overrides = [*asked.overrides, *more]
    return asked


def _with_action(arguments: Sequence[str]) -> list[str]:
    """Put the default action in front where none is named."""
    if arguments and (arguments[0] in COMMANDS or arguments[0] in ("-h", "--help")):
        return list(arguments)
    return [DEFAULT, *arguments]


def _part(name: str, part: str) -> Any:
    """Return a sub-command's part, such as its function ``run_{}``."""
    module = importlib.import_module(f"mlmodeldev.slurm.commands.{COMMANDS[name]}")
    return getattr(module, part.format(name.upper() if part.endswith("HELP") else name))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="SlurmTrain.py",
        description="Run the trials that a sweep file declares: on the cluster where there is"
        " Slurm, else on this machine.",
        epilog="SlurmTrain.py ACTION --help tells of each. Exit status: 0 done, 1 a trial failed,"
        " 2 bad input, 75 interrupted.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for name in COMMANDS:
        text = _part(name, "{}_HELP")
        own = actions.add_parser(name, help=text, description=text)
        _part(name, "add_{}_options")(own)
    return parser
