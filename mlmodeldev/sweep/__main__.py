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
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError, drop_output

if TYPE_CHECKING:
    from mlmodeldev.sweep.document import Problem
    from mlmodeldev.sweep.lint_settings import Refusal, TrainerSettings, Unset
    from mlmodeldev.sweep.loading import Sweep


def main(argv: Sequence[str] | None = None, settings: TrainerSettings | None = None) -> int:
    """Run the command line; return the exit status.

    Args:
        argv: arguments, those of the process by default.
        settings: the trainer's settings, as `mlmodeldev.sweep.lint.check` takes them.
    """
    args = _parser().parse_args(argv)
    try:
        if args.action == "check":
            return _check(args.files, args.json, settings)
        return _list(args)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        drop_output()
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


def _check(arguments: Sequence[str], as_json: bool, settings: TrainerSettings | None) -> int:
    from mlmodeldev.sweep.lint import check, check_loaded
    from mlmodeldev.sweep.loading import load

    fixed = [item for item in arguments if "=" in item and not Path(item).exists()]
    files = [file for file in arguments if file not in fixed]
    if not files:
        raise UsageError("no sweep file is named")
    unset = None
    if callable(settings):
        settings, unset = _with_fixed(fixed, settings), _unset_beside(fixed)
    sweeps: dict[str, Sweep] = {}
    problems: dict[str, list[Problem]] = {}
    for file in files:
        try:
            sweeps[file] = load(file)
            problems[file] = check_loaded(sweeps[file], settings, unset=unset)
        except UsageError:
            problems[file] = check(file, settings)  # which lists all of the mistakes
            if not any(problem.severity == "error" for problem in problems[file]):
                raise  # none of the file's: there is no project here
    failed = {file for file in files if any(p.severity == "error" for p in problems[file])}
    if as_json:
        entries = [problem.as_dict() for each in problems.values() for problem in each]
        print(json.dumps({"ok": not failed, "files": files, "problems": entries}, indent=2))
    else:
        for file, each in problems.items():
            for problem in each:
                print(problem)
            if file not in failed:
                print(f"{file}: {_summary(sweeps[file])}")
    return EXIT_BAD_INPUT if failed else 0


def _with_fixed(fixed: Sequence[str], refusal: Refusal) -> Refusal:
    """Return the check with what the command line sets for every trial."""
    return lambda key, value, choices: refusal(key, value, (*fixed, *choices))


def _unset_beside(fixed: Sequence[str]) -> Unset:
    def unset_beside(choices: Sequence[str]) -> Mapping[str, str]:
        from mlmodeldev.settings.composition import unset

        return unset([*fixed, *choices])

    return unset_beside


def _summary(sweep: Sweep) -> str:
    size = sweep.count()
    return f"ok, {sweep.method}, " + ("no end" if size is None else f"{size} trials")


def _list(args: argparse.Namespace) -> int:
    from mlmodeldev.sweep.loading import load

    for trial in load(args.file).trials(args.count, args.seed):
        entry: dict[str, Any] = {
            "id": trial.id,
            "name": trial.name,
            "group": trial.group,
            "overrides": trial.overrides,
        }
        print(json.dumps(entry) if args.json else f"{trial.id}  {trial.name}")
    return 0


def trainer_refusal(key: str, value: Any, choices: Sequence[str]) -> str | None:
    """Return what trainer.py has against a value, or None; Hydra is imported on the first call."""
    from mlmodeldev.settings.composition import refusal

    return refusal(key, value, choices)


if __name__ == "__main__":
    sys.exit(main(settings=trainer_refusal))
