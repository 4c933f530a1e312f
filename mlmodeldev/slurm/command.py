"""The command line of ``slurm/SlurmTrain.py``: a sweep file to trials.

Example::

    python slurm/SlurmTrain.py                          run what is missing of sweep/config.yaml
    python slurm/SlurmTrain.py plan --json              what would run; nothing is started
    python slurm/SlurmTrain.py status --sweep sweep/random.yaml
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.slurm.reconcile import Entry
    from mlmodeldev.sweep import Sweep

ACTIONS = {
    "submit": "run what is missing, interrupted or failed (the default)",
    "plan": "say what submit would run; start nothing",
    "status": "the table of trials",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    asked = _parser().parse_args(_with_action(sys.argv[1:] if arguments is None else arguments))
    try:
        return _act(asked)
    except UsageError as error:
        print(f"SlurmTrain.py: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _with_action(arguments: Sequence[str]) -> list[str]:
    """Put the default action in front where none is named."""
    if arguments and (arguments[0] in ACTIONS or arguments[0] in ("-h", "--help")):
        return list(arguments)
    return ["submit", *arguments]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="SlurmTrain.py",
        description="Run the trials that a sweep file declares. Without Slurm: on this machine.",
        epilog="SlurmTrain.py ACTION --help tells of each. Exit status: 0 done, 1 a trial failed,"
        " 2 bad input, 75 interrupted.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--sweep", default="sweep/config.yaml", help="sweep file")
        action.add_argument("--count", type=int, help="at most so many trials")
        action.add_argument("--seed", type=int, default=0, help="of random draws (default 0)")
        action.add_argument("--json", action="store_true", help="print one JSON object")
        action.add_argument(
            "--cluster", choices=["local"], default="local", help="where trials run"
        )
        action.add_argument(
            "overrides", nargs="*", metavar="KEY=VALUE", help="setting of every trial"
        )
    actions.choices["submit"].add_argument(
        "--dry-run", action="store_true", help="the same as plan"
    )
    return parser


def _act(asked: argparse.Namespace) -> int:
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.slurm.reconcile import reconcile
    from mlmodeldev.sweep import load

    if asked.count is not None and asked.count < 1:
        raise UsageError(f"--count {asked.count}: must be at least 1")
    base = compose_settings(asked.overrides)
    sweep = load(_sweep_file(asked.sweep))
    _check(asked.sweep)
    entries = list(reconcile(sweep, Path(base.artefacts.runs_dir), asked.count, asked.seed))
    if asked.action == "status":
        return _show(asked, sweep, entries)
    if asked.action == "plan" or asked.dry_run:
        return _plan(asked, entries)
    return _submit(asked, sweep, base, entries)


def _sweep_file(name: str) -> Path:
    """Return the file; a relative name is looked for here and in the project's folder."""
    from mlmodeldev.settings.cli import config_root

    path = Path(name)
    return path if path.exists() or path.is_absolute() else config_root() / path


def _check(name: str) -> None:
    """Refuse a sweep whose keys or values the trainer would refuse, trial after trial."""
    from mlmodeldev.settings.composition import refusal
    from mlmodeldev.sweep import check

    problems = check(_sweep_file(name), refusal)
    for problem in problems:
        if problem.severity == "error":
            raise UsageError(str(problem).replace(": error:", ":", 1))
    for problem in problems:
        print(problem, file=sys.stderr)


def _show(asked: argparse.Namespace, sweep: Sweep, entries: list[Entry]) -> int:
    if asked.json:
        print(json.dumps({"sweep": sweep.name, "trials": [e.as_dict() for e in entries]}, indent=1))
        return 0
    from mlmodeldev.slurm.table import print_table

    print_table(entries, sweep.name)
    return 0


def _plan(asked: argparse.Namespace, entries: list[Entry]) -> int:
    from mlmodeldev.slurm.reconcile import ENDED

    due = [entry for entry in entries if entry.state not in ENDED]
    plan: dict[str, Any] = {
        "trials": [
            {"id": e.trial.id, "overrides": e.trial.overrides, "state": e.state} for e in entries
        ],
        "jobs": len(due),
        "gpu_hours": 0.0,  # this machine's hours are not counted
        "script": _script(due, asked.overrides),
    }
    if asked.json:
        print(json.dumps(plan, indent=1))
        return 0
    print(
        f"{len(entries)} trials declared, {len(entries) - len(due)} ended, {len(due)} to run here:"
    )
    print(plan["script"], end="")
    return 0


def _script(due: Sequence[Entry], overrides: Sequence[str]) -> str:
    from mlmodeldev.slurm.local import trial_overrides

    lines = [shlex.join(["python", "trainer.py", *trial_overrides(e, overrides)]) for e in due]
    return "".join(f"{line}\n" for line in lines)


def _submit(asked: argparse.Namespace, sweep: Sweep, base: Settings, entries: list[Entry]) -> int:
    from mlmodeldev.settings.cli import config_root
    from mlmodeldev.slurm.local import run_local

    program = Path(sweep.definition.texts.get("program", "trainer.py")).stem
    modules = [str(group["_target_"]).rpartition(".")[0] for group in (base.model, base.data)]
    with _progress_to_stderr(asked.json):
        status = run_local(entries, program, asked.overrides, modules, config_root())
    again = [entry.again() for entry in entries]
    _show(asked, sweep, again)
    if not asked.json and again:
        _next_steps(again)
    return status


def _progress_to_stderr(as_json: bool) -> Any:
    """Keep standard output to the JSON object alone."""
    import contextlib

    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def _next_steps(entries: list[Entry]) -> None:
    from mlmodeldev.slurm.table import ranked

    best = ranked(entries)[0]
    pictures = sorted((best.folder / "cka").glob("*.png"))
    print(f"folder:    {best.folder.parent}")
    for picture in pictures:
        print(f"CKA:       {picture}")
    if best.value is not None:
        print(f"best:      {best.folder / 'best'}")
        print(f"next:      python inference.py {best.folder} IMAGE_OR_TEXT")
    print("           python slurm/SlurmTrain.py status")
