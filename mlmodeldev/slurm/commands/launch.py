"""``SlurmTrain.py submit, plan, retry``: run trials, say what would run, run what failed again."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from mlmodeldev.errors import UsageError
from mlmodeldev.project import project_root
from mlmodeldev.slurm.commands import call_hook
from mlmodeldev.slurm.commands.plan_output import local_lines, print_all, print_json
from mlmodeldev.slurm.commands.table import (
    print_notes,
    print_trials,
    ranked,
    read_ended_jobs,
    read_jobs,
)
from mlmodeldev.slurm.older_code import begun_anew, move_aside, print_interrupted, to_run_anew
from mlmodeldev.slurm.plan import Plan, make_plan, state
from mlmodeldev.slurm.query import read_queue, slurm_is_here
from mlmodeldev.slurm.submission import (
    FOLDER,
    live_arrays,
    search_workers,
    submission_names,
    submissions,
)
from mlmodeldev.slurm.sweep_diff import print_changes, print_orphans
from mlmodeldev.slurm.sweep_state import (
    SweepState,
    add_sweep_options,
    fixed_overrides,
    read_sweep_folder,
    read_sweep_state,
)
from mlmodeldev.slurm.trial_entries import ENDED, TrialEntry
from mlmodeldev.slurm.wandb_runs import add_wandb_option, with_wandb, with_wandb_states

SUBMIT_HELP = "run what is missing or interrupted (the default)"


def add_submit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_sweep_options(parser)
    add_wandb_option(parser)
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
    _add_yes(parser)


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-y", "--yes", action="store_true", help="don't ask before many GPU-hours are submitted"
    )


def run_submit(args: argparse.Namespace) -> int:
    """Run the trials that have not ended."""
    from mlmodeldev.slurm.local import run_here

    if args.dry_run:
        return run_plan(args)
    sweep_state = with_wandb(read_sweep_state(args), args.wandb)
    call_hook(args, "look_first", sweep_state)
    change = print_changes(sweep_state, "submit")
    if args.count is None and (args.prune or change is None):
        print_orphans(sweep_state, args.prune)
    _print_failed(sweep_state.entries)
    print_interrupted(sweep_state.entries, sweep_state.base.artefacts.changed_code)
    if sweep_state.base.cluster.launcher == "local":
        return _launch_here(sweep_state, args, lambda: run_here(sweep_state, args.jobs))
    return _launch_on_cluster(sweep_state, args.yes, args.json)


def _print_failed(entries: Sequence[TrialEntry]) -> None:
    failed = [entry.trial.id for entry in entries if entry.state == "failed"]
    if failed:
        few = "it" if len(failed) == 1 else "them"
        print(
            f"failed, and left: {', '.join(failed[:5])}{', ...' if len(failed) > 5 else ''};"
            f" python slurm/SlurmTrain.py retry runs {few} again",
            file=sys.stderr,
        )


PLAN_HELP = "say what submit would run; start nothing"


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_sweep_options(parser)
    add_wandb_option(parser)


def run_plan(args: argparse.Namespace) -> int:
    """Print the plan."""
    sweep_state = with_wandb(read_sweep_state(args), args.wandb)
    if sweep_state.base.cluster.launcher == "local":
        _print_local_plan(sweep_state, args.json)
        return 0
    plan = plan_on_cluster(sweep_state)
    if args.json:
        more = plan.totals()
        print_json(plan.trial_rows(), more, [more.pop("script")])
    else:
        print(_in_words(plan))
        print(plan.script if plan.tasks else "", end="")
    return 0


RETRY_HELP = "run again, as they were submitted, the failed trials (or those of older code)"


def add_retry_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_sweep_options(parser)
    parser.add_argument(
        "--changed",
        action="store_true",
        help="run anew the trials of older code than the present one; old folders are kept aside",
    )
    _add_yes(parser)


def run_retry(args: argparse.Namespace) -> int:
    """Submit what failed, or what ran with older code."""
    from mlmodeldev.slurm.local import run_again

    _recall_options(args)
    sweep_state = read_sweep_state(args)
    call_hook(args, "look_first", sweep_state)
    print_changes(sweep_state, "retry")
    jobs = read_jobs(sweep_state)
    states = [state(e, jobs.get(e.trial.id)) for e in sweep_state.entries]
    older: list[TrialEntry] = []
    again = [e for e, each in zip(sweep_state.entries, states, strict=True) if each in _FAILED]
    if args.changed:
        again = older = to_run_anew(sweep_state.entries, states)
    if sweep_state.base.cluster.launcher == "local":
        move_aside(older)
        return _launch_here(sweep_state, args, lambda: run_again(sweep_state, _as_now(again)))
    only = {entry.trial.id for entry in again}
    return _launch_on_cluster(begun_anew(sweep_state, older), args.yes, args.json, only, older)


def _as_now(entries: Sequence[TrialEntry]) -> list[TrialEntry]:
    return [entry.again() for entry in entries]


_FAILED = ("failed", "lost")


def _recall_options(args: argparse.Namespace) -> None:
    """Add the options of the last submission; what is given now comes before it."""
    made = submissions(read_sweep_folder(args))
    if not made:
        return
    args.overrides = merge_overrides(made[-1].overrides, fixed_overrides(args, default=False))
    args.cluster = None
    args.count = made[-1].count if args.count is None else args.count
    args.seed = args.seed or made[-1].seed


def merge_overrides(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Return overrides without those of the first that the second sets anew.

    >>> merge_overrides(["cluster=hec", "optimizer.lr=0.1"], ["cluster=mila"])
    ['optimizer.lr=0.1', 'cluster=mila']
    """

    def key(item: str) -> str:
        return item.partition("=")[0].lstrip("+~")

    keys = {key(item) for item in now}
    return [*(item for item in before if key(item) not in keys), *now]


# --- on a cluster


def plan_on_cluster(sweep_state: SweepState, only: Collection[str] | None = None) -> Plan:
    """Plan Slurm jobs; where there is no Slurm its limits are not known, and it is said.

    Raises:
        UsageError: Slurm would refuse, or never start them.
    """
    from mlmodeldev.slurm.limits import read_limits
    from mlmodeldev.slurm.preflight import check_cluster, check_settings, local_disk_warning

    cluster, runs_dir = sweep_state.base.cluster, sweep_state.folder.parent
    if not slurm_is_here():
        check_settings(cluster)
        print("no Slurm on this machine: its limits are not checked", file=sys.stderr)
        return make_plan(sweep_state, {}, None, only=only)
    limits = read_limits(cluster)
    check_cluster(cluster, limits, runs_dir)
    if problem := local_disk_warning(runs_dir, limits.nodes):
        print(problem, file=sys.stderr)
    searches = sweep_state.is_search and only is None
    jobs = search_workers(sweep_state.folder) if searches else read_ended_jobs(sweep_state)
    print_notes(jobs)
    in_queue = len(read_queue()) if limits.rules.max_submit is not None else 0
    return make_plan(sweep_state, jobs, limits, in_queue, only)


def _in_words(plan: Plan) -> str:
    """Return in a line or two what would be submitted."""
    cluster, count = plan.cluster, len(plan.sweep_state.entries)
    begun = "begun" if plan.searched else "declared"
    lines = [
        f"{count} trials {begun}, {plan.trials} to run in {len(plan.tasks)} jobs,"
        f" {plan.throttle} at once"
        + (f", {len(plan.arrays)} arrays one after the other" if len(plan.arrays) > 1 else "")
    ]
    if cluster.gpus:
        lines.append(
            f"{plan.gpu_hours:g} GPU-hours ({plan.basis}); {plan.throttle * cluster.gpus} GPUs at"
            f" once of cluster.max_gpus={cluster.max_gpus}"
        )
    if plan.left:
        lines.append(
            f"{plan.left} more trials do not fit into the queue (MaxSubmitJobs): submit again later"
        )
    return "\n".join(lines)


def _launch_on_cluster(
    sweep_state: SweepState,
    yes: bool,
    as_json: bool,
    only: Collection[str] | None = None,
    anew: Sequence[TrialEntry] = (),
) -> int:
    """Submit Slurm jobs and return at once.

    Args:
        yes: ask no question.
        only: no others than these trials.
        anew: trials whose folders are moved aside first.
    """
    from mlmodeldev.slurm.submit import launch

    if not slurm_is_here():
        raise UsageError(
            f"cluster={sweep_state.base.cluster.name}: there is no Slurm on this machine (sbatch);"
            " cluster=local runs the trials here, plan shows what would be submitted"
        )
    plan = plan_on_cluster(sweep_state, only)
    print(_in_words(plan), file=sys.stderr)
    jobs: list[str] = []
    if plan.tasks:
        _confirm(plan, yes)
        with _submit_lock(sweep_state):
            # workers of a search are counted instead
            move_aside(anew)
            before = [] if sweep_state.is_search else live_arrays(sweep_state.folder, leaving=False)
            jobs = [job for job, _ in launch(plan, project_root(), before).arrays]
    if as_json:
        print(json.dumps({**plan.as_dict(), "submitted": jobs}, indent=1))
    elif jobs:
        print(f"submitted: {' '.join(jobs)}")
        print("next:      python slurm/SlurmTrain.py status")
    else:
        print("nothing to submit")
    return 0


def _confirm(plan: Plan, yes: bool) -> None:
    """Ask for a yes where much is asked for."""
    most = plan.cluster.confirm_gpu_hours
    if yes or plan.gpu_hours <= most:
        return
    question = f"{plan.gpu_hours:g} GPU-hours are more than cluster.confirm_gpu_hours={most:g}"
    if not sys.stdin.isatty():
        raise UsageError(f"{question}: add --yes")
    if input(f"{question}. Submit? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was submitted")


@contextlib.contextmanager
def _submit_lock(sweep_state: SweepState) -> Iterator[None]:
    """Let one command at a time submit a sweep's trials, none of them twice.

    Raises:
        UsageError: another has submitted since this one looked, or does so now.
    """
    from filelock import Timeout

    from mlmodeldev.atomic import writing_to
    from mlmodeldev.lease import ProcessLock

    sweep_folder, folder = sweep_state.folder, sweep_state.folder / FOLDER
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    busy = UsageError(f"{sweep_folder}: another command submits its trials; see status, try again")
    try:
        with ProcessLock(folder / ".lock", timeout=0):
            if submission_names(sweep_folder) - sweep_state.submitted:
                raise busy
            yield
    except Timeout:
        raise busy from None


# --- on this machine


def _launch_here(sweep_state: SweepState, args: argparse.Namespace, run: Callable[[], int]) -> int:
    """Run trials on this machine, then print all; return the exit status."""
    # standard output is for the JSON object alone
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        status = run()
    after = with_wandb_states(read_sweep_state(args, lint=False), sweep_state.wandb_states)
    print_trials(after, args.json)
    if not args.json and after.entries:
        _print_next_steps(after.entries)
    return status


def _print_next_steps(entries: Sequence[TrialEntry]) -> None:
    best = ranked(entries)[0]
    pictures = sorted((best.folder / "cka").glob("*.png"))
    print(f"folder:    {best.folder.parent}")
    for picture in pictures:
        print(f"CKA:       {picture}")
    if best.value is not None:
        if (best.folder / "best").is_dir():
            print(f"best:      {best.folder / 'best'}")
        commands = [*_ways_to_use(best.folder), "python slurm/SlurmTrain.py status"]
        for number, line in enumerate(commands):
            print(f"{'' if number else 'next:':10} {line}")


def _ways_to_use(folder: Path) -> list[str]:
    """Return the commands that work for the model of this trial."""
    file = folder / "best" / "training_state.json"
    try:
        way = json.loads(file.read_text(encoding="utf-8")).get("inference", "predict")
    except (OSError, ValueError, AttributeError):
        return []
    if way == "predict":
        return [f"python inference.py {folder} IMAGE_OR_TEXT"]
    if way == "continue_texts":
        return [f'python inference.py {folder} "Once upon"']
    lines = [f"python inference.py {folder} EXAMPLE.npy"] if way else []
    return [*lines, f'mlmodeldev.load("{folder / "best"}")  # in Python']


def _print_local_plan(sweep_state: SweepState, as_json: bool) -> None:
    entries, passed_over = sweep_state.entries, ENDED | {"failed"}
    due = [e for e in entries if e.state not in passed_over and not e.runs_in_wandb]
    script = local_lines(due, sweep_state)
    if as_json:
        rows = (
            {"id": e.trial.id, "overrides": e.trial.overrides, "state": e.state} for e in entries
        )
        print_json(rows, {"jobs": len(due), "gpu_hours": 0.0}, script)  # hours here aren't counted
        return
    running = sum(e.runs_in_wandb for e in entries)
    beside = f", {running} running elsewhere" if running else ""
    ended = len(entries) - len(due) - running
    print(
        f"{len(entries)} trials declared, {ended} ended or failed{beside}, {len(due)} to run here:"
    )
    print_all(script)
