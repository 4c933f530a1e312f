"""Check sweep files, and list their trials.

Example::

    python -m mlmodeldev.sweep check sweep/*.yaml
    python -m mlmodeldev.sweep check sweep/text.yaml model=text_classifier
    python -m mlmodeldev.sweep list sweep/config.yaml --count 5

Exit status: 0 without errors (warnings are printed), 2 with.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError

if TYPE_CHECKING:
    from mlmodeldev.sweep.lint import KnownSettings
    from mlmodeldev.sweep.lint_trainer import Ask


def main(
    argv: Sequence[str] | None = None,
    known_settings: KnownSettings | None = None,
    known_metrics: Collection[str] | None = None,
) -> int:
    """Run the command line; return the exit status.

    Args:
        argv: arguments, those of the process by default.
        known_settings: the trainer's settings, as `mlmodeldev.sweep.lint.check` takes them.
        known_metrics: the names that the trainer logs.
    """
    arguments = _parser().parse_args(argv)
    try:
        if arguments.action == "check":
            return _check(arguments.files, arguments.json, known_settings, known_metrics)
        return _list(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        # The reader (head, less) has seen enough; the flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlmodeldev.sweep", description="Sweep files.")
    actions = parser.add_subparsers(dest="action", required=True)
    checking = actions.add_parser("check", help="look for mistakes; exit 2 if there are any")
    checking.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="sweep file, such as sweep/*.yaml; KEY=VALUE: a setting of every trial",
    )
    checking.add_argument("--json", action="store_true", help="print one JSON object")
    listing = actions.add_parser("list", help="list the trials of a grid or random sweep")
    listing.add_argument("file", metavar="FILE")
    listing.add_argument("--count", type=int, help="at most so many trials")
    listing.add_argument("--seed", type=int, default=0, help="seed of the random draws (0)")
    listing.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser


def _check(
    files: Sequence[str],
    as_json: bool,
    known_settings: KnownSettings | None,
    known_metrics: Collection[str] | None,
) -> int:
    from mlmodeldev.sweep.lint import check

    fixed = [item for item in files if "=" in item and not Path(item).exists()]
    files = [file for file in files if file not in fixed]
    if not files:
        raise UsageError("no sweep file is named")
    known = _among(fixed, known_settings) if callable(known_settings) else known_settings
    problems = {
        file: check(file, None if _is_foreign(file) else known, known_metrics) for file in files
    }
    failed = any(problem.severity == "error" for each in problems.values() for problem in each)
    if as_json:
        listed = [problem.as_dict() for each in problems.values() for problem in each]
        print(json.dumps({"ok": not failed, "files": list(files), "problems": listed}, indent=2))
        return EXIT_BAD_INPUT if failed else 0
    for file, found in problems.items():
        for problem in found:
            print(problem)
        if not any(problem.severity == "error" for problem in found):
            print(f"{file}: {_summary(file)}")
    return EXIT_BAD_INPUT if failed else 0


def _is_foreign(file: str) -> bool:
    from mlmodeldev.project import project_root
    from mlmodeldev.sweep.loading import is_foreign, load

    try:
        return is_foreign(load(file).definition, project_root())
    except UsageError:
        return False  # check itself tells what is wrong


def _among(fixed: Sequence[str], ask: Ask) -> Ask:
    """Return the question with what the command line sets for every trial."""
    return lambda key, value, beside: ask(key, value, (*fixed, *beside))


def _summary(file: str) -> str:
    from mlmodeldev.sweep.loading import load

    sweep = load(file)
    size = sweep.count()
    return f"ok, {sweep.method}, " + ("no end" if size is None else f"{size} trials")


def _list(arguments: argparse.Namespace) -> int:
    from mlmodeldev.sweep.loading import load

    for trial in load(arguments.file).trials(arguments.count, arguments.seed):
        entry: dict[str, Any] = {
            "id": trial.id,
            "name": trial.name,
            "group": trial.group,
            "overrides": trial.overrides,
        }
        print(json.dumps(entry) if arguments.json else f"{trial.id}  {trial.name}")
    return 0


def _refused_by_the_trainer(key: str, value: Any, beside: Sequence[str]) -> str | None:
    from mlmodeldev.settings.composition import refusal

    return refusal(key, value, beside)


if __name__ == "__main__":
    sys.exit(main(known_settings=_refused_by_the_trainer))
