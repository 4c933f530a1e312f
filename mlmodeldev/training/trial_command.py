"""Finished trials: run one again and compare, compare two, or measure one.

    mlmodeldev trial reproduce runs/digits/ab12cd34      bit for bit? else what differs first
    mlmodeldev trial reproduce ab12cd34 --dry-run        only what can be compared beforehand
    mlmodeldev trial diff ab12cd34 ef56ab78              code, settings, environment, data, metrics
    mlmodeldev trial evaluate ab12cd34 --data cifar10    its best weights, on other data

Exit status: 0 the same, 1 something differs, 2 bad input, 75 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.arguments import OneLineParser
from mlmodeldev.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    TrialInterrupted,
    UsageError,
    drop_output,
)
from mlmodeldev.project import project_root
from mlmodeldev.secrets import guard_output
from mlmodeldev.training.evaluate_command import (
    EVALUATE_HELP,
    add_evaluate_options,
    run_evaluate,
)
from mlmodeldev.trial import lookup

if TYPE_CHECKING:
    from mlmodeldev.training.reproduce import Report
    from mlmodeldev.trial.comparison import Difference

EXIT_DIFFERENT = 1
_PROG = "mlmodeldev trial"
_MOST_LINES = 20
"""Lines of differences of one kind that are printed; --json has all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    guard_output()
    try:
        options = _parser().parse_args(arguments)
        run = {"reproduce": _reproduce, "diff": _diff, "evaluate": run_evaluate}[options.action]
        status = run(options)
        sys.stdout.flush()
    except (UsageError, TrialInterrupted) as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT if isinstance(error, UsageError) else EXIT_INTERRUPTED
    except BrokenPipeError:
        drop_output()
        return EXIT_DIFFERENT
    return status


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=_PROG,
        description="Finished trials: run one again and compare, compare two, or measure one.",
        epilog="TRIAL is a folder, or its name below runs/. Exit status: 0 the same, 1 something"
        " differs, 2 bad input, 75 interrupted.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    again = actions.add_parser("reproduce", help="run a trial again, and compare bit for bit")
    again.add_argument("trial", metavar="TRIAL", help="its folder, or its name below runs/")
    again.add_argument("--to", type=Path, metavar="DIR", help="where (runs/.reproduced/...)")
    again.add_argument("--repository", type=Path, metavar="DIR", help="a clone with its commit")
    again.add_argument(
        "--python", default=sys.executable, metavar="FILE", help="interpreter to run it with"
    )
    again.add_argument("--fetch", action="store_true", help="fetch and prepare the data anew")
    again.add_argument(
        "--anyway", action="store_true", help="run it, though code, settings or data differ"
    )
    again.add_argument("--dry-run", action="store_true", help="compare, run nothing")
    again.add_argument("--json", action="store_true", help="print the report as JSON")
    two = actions.add_parser("diff", help="say what differs between two trials")
    two.add_argument("a", metavar="A", help="a trial")
    two.add_argument("b", metavar="B", help="another")
    two.add_argument("--json", action="store_true", help="print all differences as JSON")
    add_evaluate_options(actions.add_parser("evaluate", help=EVALUATE_HELP))
    return parser


def trial_folder(name: str) -> Path:
    """Return the folder of a trial that is named by its path, or by its name below runs/.

    Raises:
        UsageError: there is none, or several sweeps have one of this name.
    """
    given = Path(name).expanduser()
    if given.is_dir():
        return given
    try:
        runs = project_root() / "runs"
    except UsageError:
        raise UsageError(f"{name}: no such folder") from None
    return lookup.trial_folder(name, runs)


# --- reproduce


def _reproduce(options: argparse.Namespace) -> int:
    from mlmodeldev.training.reproduce import Wish, reproduce

    report = reproduce(
        Wish(
            trial_folder(options.trial),
            options.to,
            options.repository,
            options.python,
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


def _diff(options: argparse.Namespace) -> int:
    from mlmodeldev.trial.comparison import origin_differences, read_trial
    from mlmodeldev.trial.outcome import compare_outcomes, final_metrics

    a, b = (read_trial(trial_folder(name).absolute()) for name in (options.a, options.b))
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


if __name__ == "__main__":
    sys.exit(main())
