"""``mlmodeldev trial``: what is done with a trial that is there.

Example::

    mlmodeldev trial evaluate ab12cd34
    mlmodeldev trial evaluate ab12cd34 --checkpoint last --data cifar10 processing.batch_size=512
    mlmodeldev trial evaluate runs/digits/ab12cd34 --stage test --json

Exit status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.arguments import OneLineParser

STAGES = ("validation", "test")


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status.

    Raises:
        UsageError: bad input.
    """
    args = _parser().parse_args(arguments)
    status: int = args.function(args)
    return status


def _parser() -> argparse.ArgumentParser:
    """Return the parser; nothing heavy is imported for ``--help``."""
    parser = OneLineParser(
        prog="mlmodeldev trial", description="What is done with a trial that is there."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=OneLineParser)
    evaluating = actions.add_parser(
        "evaluate",
        help="measure its weights again, on its data or on others",
        description="Measure a trial's weights again; the trial itself is left as it is. The"
        " result is kept in the trial's evaluations/.",
    )
    _add_evaluate_options(evaluating)
    return parser


def _add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=_evaluate)
    add = parser.add_argument
    add("trial", metavar="TRIAL", help="its folder, its path under the runs folder, or its id")
    add(
        "--checkpoint",
        default="best",
        metavar="WEIGHTS",
        help="best, last, or a checkpoint's file (%(default)s)",
    )
    add(
        "--data",
        nargs="+",
        default=[],
        metavar="DATA",
        help="other data: a file of conf/data by name, or settings such as data.val_fraction=0.5",
    )
    add("--stage", choices=STAGES, help="only this one (both)")
    add(
        "--runs-dir", type=Path, default=Path("runs"), help="where ids are looked for (%(default)s)"
    )
    add("--json", action="store_true", help="print one JSON object")


def _evaluate(args: argparse.Namespace) -> int:
    from mlmodeldev.training.evaluation import evaluate, keep
    from mlmodeldev.trial.lookup import trial_folder

    overrides = [item if "=" in item else f"data={item}" for item in args.data]
    stages: Any = (args.stage,) if args.stage else STAGES
    folder = trial_folder(args.trial, args.runs_dir)
    result = evaluate(folder, args.checkpoint, overrides, stages)
    if args.json:
        print(json.dumps({**result, "written": str(keep(folder, result))}, indent=1))
    else:
        _print_table(result)
        print(keep(folder, result))
    return 0


def _print_table(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['trial']}  {result['file']}", title_justify="left")
    for name in ("stage", "metric"):
        table.add_column(name, overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    for stage in STAGES:
        for name, value in sorted(result.get(stage, {}).items()):
            table.add_row(stage, name, f"{value:.6g}")
    Console(markup=False, emoji=False).print(table)
