"""The command ``mlmodeldev``: one name for all that is done from a shell.

    mlmodeldev init digits                   a new project in the folder digits
    mlmodeldev slurm plan                    what slurm/SlurmTrain.py plan prints
    mlmodeldev sweep check sweep/config.yaml
    eval "$(mlmodeldev --print-completion bash)"

A sub-command is a module that is imported only when it is called, so that ``--help`` and a typo
answer at once. To add one, add a line to `COMMANDS`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mlmodeldev import __version__
from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError, drop_output, nearest

if TYPE_CHECKING:
    import argparse


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Args:
        module: runs as ``python -m module`` does, unless ``function`` is given.
        help: a line of ``--help``.
        first: arguments that come before those of the command line.
        function: what to call with the arguments; it returns the exit status.
    """

    module: str
    help: str
    first: tuple[str, ...] = ()
    function: str | None = None


_DOCTOR = "mlmodeldev.doctor.command"
_REPORT = "mlmodeldev.report.command"
_TRIAL = "mlmodeldev.slurm.trial_command"
_VERSION = "mlmodeldev.data.version_command"
_REGISTRY = "mlmodeldev.tracking.registry_command"
COMMANDS = {
    "init": Command("mlmodeldev.template.init", "write a new project"),
    "adopt": Command("mlmodeldev.template.adopt", "make an existing Lightning repository run here"),
    "update": Command("mlmodeldev.template.update", "bring a project to the installed version"),
    "sweep": Command("mlmodeldev.sweep", "check a sweep file, or list its trials"),
    "search": Command("mlmodeldev.sweep.search", "run trials of an offline search"),
    "data": Command("mlmodeldev.data", "fetch datasets: whole, verified, once"),
    "version": Command(_VERSION, "keep data, trials, weights and logs by DVC", (), "main"),
    "trial": Command(_TRIAL, "reproduce, compare, evaluate or export trials", (), "main"),
    "registry": Command(_REGISTRY, "versions of models, which is champion, from where", (), "main"),
    "cka": Command("mlmodeldev.alignment", "compare the layers of two models (CKA)"),
    "secrets": Command("mlmodeldev.secrets", "look for keys in files that git tracks"),
    "agent": Command("mlmodeldev.slurm.agent", "run trials that a W&B sweep hands out"),
    "slurm": Command("mlmodeldev.cli", "run a sweep file's trials: plan ...", (), "slurm_train"),
    "report": Command(
        "mlmodeldev.cli", "one page on a sweep, without a network", ("report",), "slurm_train"
    ),
    "doctor": Command(
        "mlmodeldev.cli", "say what may be wrong here, a mend for each", ("doctor",), "slurm_train"
    ),
}
"""Sub-commands in the order of --help."""

SHELLS = ("bash", "zsh")


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in COMMANDS:
            return _run(given[0], given[1:])
        return _answer(given)
    except UsageError as error:
        print(f"mlmodeldev: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        drop_output()
        return 0


def slurm_train(arguments: Sequence[str] | None = None) -> int:
    """Answer slurm/SlurmTrain.py: Slurm's sub-commands, doctor and report.

    Doctor looks before a submit, and a report that is there is renewed by ``status`` and
    ``collect``. Only here are the three combined: none needs the others.
    """
    from mlmodeldev.slurm import command_line

    others = {"report": _REPORT, "doctor": _DOCTOR}
    hooks = {"look_first": _DOCTOR, "look_after": _REPORT}
    return command_line.main(arguments, others, hooks)


def _run(name: str, arguments: list[str]) -> int:
    """Run a sub-command; return its exit status."""
    command = COMMANDS[name]
    _put_project_first()
    given = [*command.first, *arguments]
    if command.function:
        function = getattr(importlib.import_module(command.module), command.function)
        return int(function(given))
    sys.argv = [f"mlmodeldev {name}", *given]
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)
    return 0


def _put_project_first() -> None:
    """Let imports begin in the project, as they do for ``python trainer.py``.

    A console script's imports begin in the folder where it is installed.
    """
    from mlmodeldev.project import project_root

    try:
        folder = str(project_root())
    except UsageError:  # a command that needs a project says so itself
        folder = os.getcwd()  # noqa: PTH109
    if sys.path[0] != folder:
        sys.path.insert(0, folder)


def _answer(given: list[str]) -> int:
    """Answer a command line that names no sub-command."""
    names = ", ".join(COMMANDS)
    if not given:
        raise UsageError(f"which command? {names}; mlmodeldev --help tells of each")
    if not given[0].startswith("-"):
        raise UsageError(
            f"{given[0]}: no such command{nearest(given[0], COMMANDS)} (there are {names})"
        )
    options = _parser().parse_args([given[0], *given[1:]])
    if options.print_completion:
        print(completion(options.print_completion))
    return 0


def _parser(full: bool = False) -> argparse.ArgumentParser:
    """Return the parser.

    Args:
        full: with the options of each sub-command, which imports them all.
    """
    import argparse

    from mlmodeldev.arguments import OneLineParser

    parser = OneLineParser(
        prog="mlmodeldev",
        description="Deep learning on Slurm clusters: a project, its trials, their results.",
        epilog="mlmodeldev COMMAND --help tells of each. Exit status: 0 done, 1 a trial failed,"
        " 2 bad input, 75 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"mlmodeldev {__version__}")
    parser.add_argument(
        "--print-completion", choices=SHELLS, metavar="SHELL", help="completion for bash or zsh"
    )
    actions = parser.add_subparsers(
        title="commands", metavar="COMMAND", parser_class=argparse.ArgumentParser
    )
    for name, command in COMMANDS.items():
        parents = [_own_parser(name)] if full else []
        actions.add_parser(name, help=command.help, parents=parents, add_help=not full)
    return parser


def completion(shell: str) -> str:
    """Return a shell's script that completes commands, options and files.

    Raises:
        UsageError: the package shtab is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError:
        raise UsageError("--print-completion: needs the package shtab, which is missing") from None
    parser = _parser(full=True)
    _complete_files(parser, shtab.FILE)
    return str(shtab.complete(parser, shell=shell))


def _own_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser that a sub-command reads its command line with.

    The command is run until it asks the parser: it needs no function for this alone.
    """
    import argparse

    parsers: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        parsers.append(parser)
        raise SystemExit

    real = argparse.ArgumentParser.parse_known_args
    argparse.ArgumentParser.parse_known_args = stop  # type: ignore[assignment]
    try:
        with contextlib.suppress(SystemExit):
            _run(name, [])
    finally:
        argparse.ArgumentParser.parse_known_args = real  # type: ignore[method-assign]
    parser = parsers[0]
    for word in COMMANDS[name].first:
        parser = _sub_parsers(parser)[word]
    return parser


def _sub_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    import argparse

    result: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            result.update(action.choices)
    return result


def _complete_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Mark the arguments that take a file or a folder, for shtab."""
    from pathlib import Path

    for action in parser._actions:
        if action.type is Path or action.metavar in ("FILE", "DIR"):
            action.complete = files  # type: ignore[attr-defined]
    for each in _sub_parsers(parser).values():
        _complete_files(each, files)


if __name__ == "__main__":
    sys.exit(main())
