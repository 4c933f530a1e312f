"""``mlmodeldev trial gc``: how large trials are, and what of them nobody needs any more."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.trial.named import RUNS_DIR_HELP, runs_folder

if TYPE_CHECKING:
    from mlmodeldev.slurm.housekeeping import Survey
    from mlmodeldev.slurm.trial_sizes import Choice, TrialSize

GC_HELP = "say how large trials are, and remove what nobody needs any more"
ROWS = 60
_WIDTH = 120
"""Trials shown at most."""
_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}
_HEADS = {"checkpoints": "optimizer", "wandb": "W&B"}


def add_gc_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "names", nargs="*", metavar="SWEEP", help="sweep, sweep file or trial (all of RUNS)"
    )
    parser.add_argument(
        "--optimizer-states",
        action="store_true",
        help="drop finished trials' checkpoints: best/ and last/ stay, no epochs can follow",
    )
    parser.add_argument(
        "--keep", type=int, metavar="N", help="the newest N of these checkpoints stay (0)"
    )
    parser.add_argument(
        "--reproductions",
        action="store_true",
        help="drop what trial reproduce has made, where it is finished",
    )
    parser.add_argument(
        "--older-than", type=_seconds, default=0.0, metavar="AGE", help="only what is: 12h, 7d, 4w"
    )
    parser.add_argument("--runs-dir", type=Path, metavar="DIR", help=RUNS_DIR_HELP)
    parser.add_argument("--dry-run", action="store_true", help="only show what would go")
    parser.add_argument("--yes", action="store_true", help="ask no question")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: 12h, 7d or 4w, say")
    return float(match[1]) * _UNITS[match[2]]


def run_gc(args: argparse.Namespace) -> int:
    """Show, ask, remove; return 1 if something could not be removed."""
    from mlmodeldev.fetch.files import human
    from mlmodeldev.slurm.housekeeping import remove, select, survey

    surveyed = survey(select(args.names, _existing(runs_folder(args.runs_dir))), _choice(args))
    if not args.json:
        _print_survey(surveyed)
    for note in surveyed.notes:
        print(note, file=sys.stderr)
    removed = 0
    notes: list[str] = []
    if surveyed.drops and not args.dry_run:
        if not args.yes:
            _ask(f"Remove {human(surveyed.free)}?")
            surveyed = _still(surveyed)
        removed, notes = remove(surveyed)
        if not args.json:
            print(f"removed {human(removed)}")
    for note in notes:
        print(note, file=sys.stderr)
    if args.json:
        content = {**_as_dict(surveyed), "dry_run": args.dry_run, "removed": removed}
        print(json.dumps({**content, "notes": [*surveyed.notes, *notes]}, indent=1))
    return 1 if notes else 0


def _choice(args: argparse.Namespace) -> Choice:
    from mlmodeldev.slurm.trial_sizes import Choice

    if args.keep is not None and not args.optimizer_states:
        raise UsageError("--keep: says how many checkpoints stay of --optimizer-states; add it")
    if args.keep is not None and args.keep < 0:
        raise UsageError(f"--keep {args.keep}: must be at least 0")
    return Choice(args.optimizer_states, args.keep or 0, args.older_than, args.reproductions)


def _existing(runs: Path) -> Path:
    if not runs.is_dir():
        raise UsageError(f"{runs}: no such folder, so there are no trials")
    return runs


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} add --yes (--dry-run only shows)")
    print(f"{question} [y/N] ", end="", flush=True, file=sys.stderr)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was removed")


def _still(surveyed: Survey) -> Survey:
    """Return of what was shown what may go now: a question may stand for hours."""
    from mlmodeldev.slurm.housekeeping import survey

    shown = {each.path for each in surveyed.drops}
    now = survey(surveyed.selection, surveyed.choice)
    for trial in now.trials:
        trial.drops = [each for each in trial.drops if each.path in shown]
    now.others = {f: [d for d in drops if d.path in shown] for f, drops in now.others.items()}
    return now


# --- what is printed


def _print_survey(surveyed: Survey) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mlmodeldev.fetch.files import human
    from mlmodeldev.slurm.trial_sizes import PARTS

    shown = surveyed.trials[:ROWS]
    parts = [part for part in PARTS if any(trial.sizes[part] for trial in shown)]
    table = Table()
    table.add_column("trial", no_wrap=True)
    for name in ("state", *(_HEADS.get(part, part) for part in parts), "goes"):
        table.add_column(name, no_wrap=True)
    table.add_column("stays, since it", overflow="fold")
    for trial in shown:
        sizes = [human(trial.sizes[part]) if trial.sizes[part] else "" for part in parts]
        goes = human(trial.free) if trial.drops else ""
        table.add_row(*map(escape, (trial.name, trial.state, *sizes, goes, trial.kept)))
    if shown:
        console = Console(emoji=False, highlight=False)
        console.width = max(console.width, _WIDTH)  # a name that is cut can't be copied
        console.print(table)
    if len(surveyed.trials) > ROWS:
        print(f"and {len(surveyed.trials) - ROWS} smaller trials (--json has all)")
    for part, size, count in _by_part(surveyed):
        print(f"{part}: {human(size)} in {count}")
    total = sum(trial.size for trial in surveyed.trials)
    print(f"{len(surveyed.trials)} trials, {human(total)}; {human(surveyed.free)} may go")
    states = sum(trial.sizes["checkpoints"] for trial in surveyed.trials if _could(trial))
    if states and not surveyed.choice.states:
        print(f"--optimizer-states: {human(states)} more, of finished trials")
    again = surveyed.reproductions
    if again and not surveyed.choice.reproductions:
        size = sum(each.size for each in again)
        print(f"--reproductions: of {human(size)} in {len(again)} more, those that are finished")


def _could(trial: TrialSize) -> bool:
    return not trial.kept and trial.state != "failed"


def _by_part(surveyed: Survey) -> list[tuple[str, int, int]]:
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for each in surveyed.drops:
        sizes[each.part] += each.size
        counts[each.part] += 1
    return [(part, sizes[part], count) for part, count in counts.items()]


def _as_dict(surveyed: Survey) -> dict[str, Any]:
    def listed(drops: Any) -> list[dict[str, Any]]:
        return [{"path": str(d.path), "part": d.part, "bytes": d.size} for d in drops]

    trials = [
        {
            "trial": trial.name,
            "folder": str(trial.folder),
            "state": trial.state,
            "bytes": trial.sizes,
            "kept": trial.kept or None,
            "drops": listed(trial.drops),
        }
        for trial in surveyed.trials
    ]
    others = [each for drops in surveyed.others.values() for each in drops]
    return {
        "runs_dir": str(surveyed.selection.runs_dir),
        "trials": trials,
        "others": listed(others),
        "reproductions": [
            {"path": str(each.folder), "bytes": each.size, "finished": each.finished}
            for each in surveyed.reproductions
        ],
        "bytes": sum(trial.size for trial in surveyed.trials),
        "free": surveyed.free,
    }
