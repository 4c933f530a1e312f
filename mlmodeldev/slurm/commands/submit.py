"""``SlurmTrain.py submit``: run what is missing or interrupted; `retry` runs what failed."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm import orphans, sweep_diff, sweep_state, wandb_runs
from mlmodeldev.slurm.commands import plan, status

if TYPE_CHECKING:
    from mlmodeldev.slurm.plan import Plan
    from mlmodeldev.slurm.reconcile import Entry
    from mlmodeldev.slurm.sweep_state import Declared

HELP = "run what is missing or interrupted (the default)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)
    wandb_runs.add_option(parser)
    parser.add_argument("--dry-run", action="store_true", help="the same as plan")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="K",
        help="on this machine: trials at once (default: cluster.trials_per_gpu on each GPU)",
    )
    parser.add_argument(
        "--prune", action="store_true", help="end trials that the file no longer declares"
    )
    add_yes(parser)


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add the option that answers the question."""
    parser.add_argument(
        "-y", "--yes", action="store_true", help="don't ask before many GPU-hours are submitted"
    )


def run(asked: argparse.Namespace) -> int:
    """Run the trials that have not ended."""
    if asked.dry_run:
        return plan.run(asked)
    known = wandb_runs.with_wandb(sweep_state.read(asked), asked.wandb)
    told = sweep_diff.tell(known, "submit")
    if asked.count is None and (asked.prune or told is None):
        orphans.tell(known, asked.prune)
    _tell_of_failed(known.entries)
    if known.base.cluster.launcher == "local":
        return here(known, asked)
    return to_cluster(known, asked.yes, asked.json)


def _tell_of_failed(entries: Sequence[Entry]) -> None:
    failed = [entry.trial.id for entry in entries if entry.state == "failed"]
    if failed:
        few = "it" if len(failed) == 1 else "them"
        print(
            f"failed, and left: {', '.join(failed[:5])}{', ...' if len(failed) > 5 else ''};"
            f" python slurm/SlurmTrain.py retry runs {few} again",
            file=sys.stderr,
        )


def to_cluster(
    known: Declared, yes: bool, as_json: bool, only: Collection[str] | None = None
) -> int:
    """Submit Slurm jobs and return at once.

    Args:
        yes: ask no question.
        only: no others than these trials.
    """
    from mlmodeldev.settings.command_line import config_root
    from mlmodeldev.slurm.launch import launch
    from mlmodeldev.slurm.query import slurm_is_here
    from mlmodeldev.slurm.tasks import live_arrays

    if not slurm_is_here():
        raise UsageError(
            f"cluster={known.base.cluster.name}: there is no Slurm on this machine (sbatch);"
            " cluster=local runs the trials here, plan shows what would be submitted"
        )
    made = plan.on_cluster(known, only)
    print(plan.in_words(made), file=sys.stderr)
    jobs: list[str] = []
    if made.tasks:
        _confirm(made, yes)
        with _alone(known):
            # workers of a search are counted instead
            before = [] if known.sweep.method == "bayes" else live_arrays(known.folder)
            jobs = [job for job, _ in launch(made, config_root(), before).arrays]
    if as_json:
        print(json.dumps({**made.as_dict(), "submitted": jobs}, indent=1))
    elif jobs:
        print(f"submitted: {' '.join(jobs)}")
        print("next:      python slurm/SlurmTrain.py status")
    else:
        print("nothing to submit")
    return 0


@contextlib.contextmanager
def _alone(known: Declared) -> Iterator[None]:
    """Let one command at a time submit a sweep's trials, none of them twice.

    Raises:
        UsageError: another has submitted since this one looked, or does so now.
    """
    from filelock import FileLock, Timeout

    from mlmodeldev.atomic import writing_to
    from mlmodeldev.slurm.submission import FOLDER, submissions

    folder = known.folder / FOLDER
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    busy = UsageError(f"{known.folder}: another command submits its trials; see status, try again")
    try:
        with FileLock(folder / ".lock", timeout=0):
            if any(made.created > known.read_at for made in submissions(known.folder)):
                raise busy
            yield
    except Timeout:
        raise busy from None


def _confirm(made: Plan, yes: bool) -> None:
    """Ask for a yes where much is asked for."""
    most = made.cluster.confirm_gpu_hours
    if yes or made.gpu_hours <= most:
        return
    asks = f"{made.gpu_hours:g} GPU-hours are more than cluster.confirm_gpu_hours={most:g}"
    if not sys.stdin.isatty():
        raise UsageError(f"{asks}: add --yes")
    if input(f"{asks}. Submit? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was submitted")


def here(known: Declared, asked: argparse.Namespace, only: Sequence[Entry] | None = None) -> int:
    """Run on this machine."""
    from mlmodeldev.settings.command_line import config_root
    from mlmodeldev.slurm.local import run_here, run_local

    with _progress_to_stderr(asked.json):
        if only is None:
            outcome = run_here(known, asked.jobs, asked.seed, asked.count)
        else:
            root = config_root()
            parts = (only, known.program, known.overrides, known.modules, root)
            outcome = run_local(*parts, retry=True, start=known.starter(root))
    again = wandb_runs.attached(sweep_state.read(asked, lint=False), known.elsewhere).entries
    status.show(known.sweep, again, asked.json)
    if not asked.json and again:
        _next_steps(again)
    return outcome


def _progress_to_stderr(as_json: bool) -> Any:
    """Keep standard output to the JSON object alone."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def _next_steps(entries: Sequence[Entry]) -> None:
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
