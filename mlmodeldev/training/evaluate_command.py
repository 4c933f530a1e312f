"""``mlmodeldev trial evaluate``: its options, and the table of what was measured.

Example::

    add_evaluate_options(parser)
    run_evaluate(parser.parse_args(["ab12cd34", "--checkpoint", "last"]))
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmodeldev.trial.named import RUNS_DIR_HELP, runs_folder, trial_folder

STAGES = ("validation", "test")
EVALUATE_HELP = "measure its weights again, on its data or on others"


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; nothing heavy is imported."""
    parser.description = (
        "Measure a trial's weights again; the trial itself is left as it is. The result is kept in"
        " the trial's evaluations/."
    )
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
    add("--runs-dir", type=Path, metavar="DIR", help=RUNS_DIR_HELP)
    add("--json", action="store_true", help="print one JSON object")
    add(
        "--metrics",
        type=Path,
        metavar="FILE",
        help="write the numbers alone into this file of JSON, and nothing into the trial",
    )


def run_evaluate(args: argparse.Namespace) -> int:
    """Measure, print, and keep the result; return the exit status.

    Raises:
        UsageError: bad input.
    """
    from mlmodeldev.training.evaluation import evaluate, keep

    overrides = [item if "=" in item else f"data={item}" for item in args.data]
    stages: Any = (args.stage,) if args.stage else STAGES
    folder = trial_folder(args.trial, runs_folder(args.runs_dir))
    result = evaluate(folder, args.checkpoint, overrides, stages)
    written = keep(folder, result) if args.metrics is None else _write_metrics(args.metrics, result)
    if args.json:
        print(json.dumps({**result, "written": str(written)}, indent=1))
    else:
        _print_table(result)
        print(written)
    return 0


def _write_metrics(file: Path, result: Mapping[str, Any]) -> Path:
    """Write the values by their names, as `dvc metrics` shows them."""
    from mlmodeldev.atomic import write_json, writing_to

    with writing_to(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    values: dict[str, float] = {}
    for stage in STAGES:
        for name, value in result.get(stage, {}).items():
            values[f"{stage}/{name}" if name in values else name] = value
    write_json(file, values)
    return file


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
