"""The command ``mlmodeldev trial``: what is done with trials that are there.

Example::

    mlmodeldev trial reproduce ab12cd34        run it again: the same, bit for bit?
    mlmodeldev trial diff ab12cd34 ef56ab78    what differs between two
    mlmodeldev trial evaluate ab12cd34 --data cifar10    its best weights, on other data
    mlmodeldev trial export ab12cd34 --onnx    its best/ gets a model.onnx
    mlmodeldev trial prepare data=cola         what a trial fetches and makes first
    mlmodeldev trial gc --dry-run              how large they are, what nobody needs

Exit status: 0 done, 1 something differs or was left, 2 bad input, 75 interrupted.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from mlmodeldev.arguments import OneLineParser
from mlmodeldev.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    TrialInterrupted,
    UsageError,
    drop_output,
)
from mlmodeldev.machine import keep_from_others
from mlmodeldev.secrets import guard_output

ACTIONS = {
    "reproduce": "mlmodeldev.training.reproduce_command",
    "diff": "mlmodeldev.training.reproduce_command",
    "evaluate": "mlmodeldev.training.evaluate_command",
    "export": "mlmodeldev.training.export_command",
    "prepare": "mlmodeldev.training.prepare_command",
    "gc": "mlmodeldev.slurm.commands.housekeeping",
}
"""Actions in the order of --help, with their modules (see `mlmodeldev.slurm.commands`)."""

EXIT_CTRL_C = 130
_PROG = "mlmodeldev trial"


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    guard_output()
    keep_from_others()
    try:
        args = _parser().parse_args(arguments)
        status = int(_attribute(args.action, f"run_{args.action}")(args))
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except TrialInterrupted as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_CTRL_C
    except BrokenPipeError:
        drop_output()
        return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog=_PROG,
        description="What is done with trials that are there.",
        epilog="TRIAL is a folder, or its name below runs/. Exit status: 0 done or the same,"
        " 1 something differs or was left, 2 bad input, 75 interrupted.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name in ACTIONS:
        text = _attribute(name, f"{name.upper()}_HELP")
        _attribute(name, f"add_{name}_options")(
            actions.add_parser(name, help=text, description=text)
        )
    return parser


def _attribute(action: str, name: str) -> Any:
    return getattr(importlib.import_module(ACTIONS[action]), name)
