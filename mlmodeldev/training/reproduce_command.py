"""``mlmodeldev trial reproduce`` and ``diff``: run a finished trial again, or compare two.

mlmodeldev trial reproduce runs/digits/ab12cd34      bit for bit? else what differs first
mlmodeldev trial reproduce ab12cd34 --environment    with its packages, installed beside it
mlmodeldev trial reproduce ab12cd34 --dry-run        only what can be compared beforehand
mlmodeldev trial diff ab12cd34 ef56ab78              code, settings, environment, data, metrics
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.project import project_root
from mlmodeldev.trial.named import RUNS_DIR_HELP, runs_folder, trial_folder

if TYPE_CHECKING:
    from mlmodeldev.training.reproduction import Report
    from mlmodeldev.trial.comparison import Difference

EXIT_DIFFERENT = 1
_TRIAL = "its folder, or its name below runs/"
_MOST_LINES = 20
"""Lines of differences of one kind that are printed; --json has all."""


REPRODUCE_HELP = "run a finished trial again, and compare bit for bit"
DIFF_HELP = "say what differs between two trials"


def add_reproduce_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``reproduce``."""
    parser.add_argument("trial", metavar="TRIAL", help=_TRIAL)
    parser.add_argument("--to", type=Path, metavar="DIR", help="where (runs/.reproduced/...)")
    parser.add_argument("--repository", type=Path, metavar="DIR", help="a clone with its commit")
    parser.add_argument(
        "--environment", action="store_true", help="build the recorded environment to run it in"
    )
    parser.add_argument(
        "--python", metavar="FILE", help="interpreter to run it with, or to build that of (this)"
    )
    parser.add_argument("--fetch", action="store_true", help="fetch and prepare the data anew")
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="run it, though code, settings or data differ, or a package is not to be had",
    )
    parser.add_argument("--dry-run", action="store_true", help="compare, run nothing")
    _add_common(parser, "print the report as JSON")


def add_diff_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``diff``."""
    parser.add_argument("a", metavar="A", help=_TRIAL)
    parser.add_argument("b", metavar="B", help="another")
    _add_common(parser, "print all differences as JSON")


def _add_common(parser: argparse.ArgumentParser, json_help: str) -> None:
    parser.add_argument("--runs-dir", type=Path, metavar="DIR", help=RUNS_DIR_HELP)
    parser.add_argument("--json", action="store_true", help=json_help)


# --- reproduce


def run_reproduce(options: argparse.Namespace) -> int:
    """Run the trial again; return 1 if it does not come out the same."""
    from mlmodeldev.training.reproduce import reproduce
    from mlmodeldev.training.reproduction import Wish

    report = reproduce(
        Wish(
            trial_folder(options.trial, runs_folder(options.runs_dir)),
            options.to,
            options.repository,
            options.python,
            options.environment,
            options.fetch,
            options.anyway,
            options.dry_run,
        )
    )
    if options.json:
        print(json.dumps(report.as_json(), indent=1, default=str))
    else:
        _print_report(report)
    return 0 if report.verdict in ("reproduced", "same origin") else EXIT_DIFFERENT


def _print_report(report: Report) -> None:
    if report.differences:
        _print_differences(report.differences, ("recorded", "here"))
    for note in report.notes:
        print(f"note: {note}")
    compared = f"{report.rows} rows of metrics, {report.tensors} tensors"
    sentences = {
        "reproduced": f"reproduced bit for bit: {compared}",
        "differs": f"differs ({compared} compared)" if report.folder else "differs",
        "stopped": "not run, since it can't come out the same (--anyway runs it)",
        "failed": "failed: it did not run to its end",
        "same origin": "code, settings, environment and data are the trial's; nothing was run",
    }
    if report.folder:
        print(f"folder: {report.folder}")
    culprit = f": {report.culprit}" if report.culprit and report.verdict != "reproduced" else ""
    print(f"{sentences[report.verdict]}{culprit}")


# --- diff


def run_diff(options: argparse.Namespace) -> int:
    """Compare two trials; return 1 if they differ."""
    from mlmodeldev.trial.comparison import origin_differences, read_trial
    from mlmodeldev.trial.outcome import compare_outcomes, final_metrics

    runs = runs_folder(options.runs_dir)
    a, b = (read_trial(trial_folder(name, runs)) for name in (options.a, options.b))
    outcome = compare_outcomes(a.folder, b.folder)
    differences = [*origin_differences(a, b, _repository()), *outcome.differences]
    metrics = final_metrics(a.folder, b.folder)
    if options.json:
        print(json.dumps(_as_json(a.folder, b.folder, differences, metrics), indent=1, default=str))
    else:
        _print_differences(differences, (a.folder.name, b.folder.name))
        if differences:
            _print_metrics(metrics, (a.folder.name, b.folder.name))
        else:
            compared = f"{outcome.rows} rows of metrics, {outcome.tensors} tensors"
            print(f"the same: code, settings, environment, data; {compared}")
    return EXIT_DIFFERENT if differences else 0


def _repository() -> Path | None:
    try:
        return project_root()
    except UsageError:
        return None


def _as_json(
    a: Path, b: Path, differences: Sequence[Difference], metrics: dict[str, Any]
) -> dict[str, Any]:
    return {
        "a": str(a),
        "b": str(b),
        "equal": not differences,
        "differences": [asdict(each) for each in differences],
        "metrics": {name: {"a": pair[0], "b": pair[1]} for name, pair in metrics.items()},
    }


def _print_differences(differences: Sequence[Difference], sides: tuple[str, str]) -> None:
    """Print a table, a row a difference; of one kind so many at most."""
    from rich.markup import escape

    rows = []
    for kind in dict.fromkeys(each.kind for each in differences):
        chosen = [each for each in differences if each.kind == kind]
        for each in chosen[:_MOST_LINES]:
            rows.append((kind, each.name, _shown(each.a), _shown(each.b)))
        if len(chosen) > _MOST_LINES:
            rows.append((kind, f"and {len(chosen) - _MOST_LINES} more (--json)", "", ""))
    if rows:
        _print_table(("", "what", *map(escape, sides)), rows)


def _print_metrics(metrics: dict[str, tuple[Any, Any]], sides: tuple[str, str]) -> None:
    from rich.markup import escape

    rows = [(name, *map(_shown, pair)) for name, pair in metrics.items() if pair[0] != pair[1]]
    if rows:
        _print_table(("metric, at the end", *map(escape, sides)), rows)


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(emoji=False, highlight=False).print(table)


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)
