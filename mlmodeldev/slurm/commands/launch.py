"""``SlurmTrain.py submit``: run what is missing or interrupted; `retry` runs what failed."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm import sweep_diff, sweep_state, wandb_runs
from mlmodeldev.slurm.commands import trials

if TYPE_CHECKING:
    from mlmodeldev.slurm.plan import Plan
    from mlmodeldev.slurm.sweep_state import SweepState, TrialEntry


SUBMIT_HELP = "run what is missing or interrupted (the default)"


def add_submit_options(parser: argparse.ArgumentParser) -> None:
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


def run_submit(asked: argparse.Namespace) -> int:
    """Run the trials that have not ended."""
    if asked.dry_run:
        return run_plan(asked)
    known = wandb_runs.with_wandb(sweep_state.read(asked), asked.wandb)
    told = sweep_diff.print_changes(known, "submit")
    if asked.count is None and (asked.prune or told is None):
        sweep_diff.print_orphans(known, asked.prune)
    _tell_of_failed(known.entries)
    if known.base.cluster.launcher == "local":
        return here(known, asked)
    return to_cluster(known, asked.yes, asked.json)


def _tell_of_failed(entries: Sequence[TrialEntry]) -> None:
    failed = [entry.trial.id for entry in entries if entry.state == "failed"]
    if failed:
        few = "it" if len(failed) == 1 else "them"
        print(
            f"failed, and left: {', '.join(failed[:5])}{', ...' if len(failed) > 5 else ''};"
            f" python slurm/SlurmTrain.py retry runs {few} again",
            file=sys.stderr,
        )


def to_cluster(
    known: SweepState, yes: bool, as_json: bool, only: Collection[str] | None = None
) -> int:
    """Submit Slurm jobs and return at once.

    Args:
        yes: ask no question.
        only: no others than these trials.
    """
    from mlmodeldev.project import project_root
    from mlmodeldev.slurm.query import slurm_is_here
    from mlmodeldev.slurm.submission import live_arrays
    from mlmodeldev.slurm.submit import launch

    if not slurm_is_here():
        raise UsageError(
            f"cluster={known.base.cluster.name}: there is no Slurm on this machine (sbatch);"
            " cluster=local runs the trials here, plan shows what would be submitted"
        )
    made = on_cluster(known, only)
    print(in_words(made), file=sys.stderr)
    jobs: list[str] = []
    if made.tasks:
        _confirm(made, yes)
        with _alone(known):
            # workers of a search are counted instead
            before = [] if known.sweep.method == "bayes" else live_arrays(known.folder)
            jobs = [job for job, _ in launch(made, project_root(), before).arrays]
    if as_json:
        print(json.dumps({**made.as_dict(), "submitted": jobs}, indent=1))
    elif jobs:
        print(f"submitted: {' '.join(jobs)}")
        print("next:      python slurm/SlurmTrain.py status")
    else:
        print("nothing to submit")
    return 0


@contextlib.contextmanager
def _alone(known: SweepState) -> Iterator[None]:
    """Let one command at a time submit a sweep's trials, none of them twice.

    Raises:
        UsageError: another has submitted since this one looked, or does so now.
    """
    from filelock import Timeout

    from mlmodeldev.atomic import writing_to
    from mlmodeldev.lease import ProcessLock
    from mlmodeldev.slurm.submission import FOLDER, submissions

    folder = known.folder / FOLDER
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    busy = UsageError(f"{known.folder}: another command submits its trials; see status, try again")
    try:
        with ProcessLock(folder / ".lock", timeout=0):
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


def here(
    known: SweepState, asked: argparse.Namespace, only: Sequence[TrialEntry] | None = None
) -> int:
    """Run on this machine."""
    from mlmodeldev.project import project_root
    from mlmodeldev.slurm.local import run_here, run_local

    with _progress_to_stderr(asked.json):
        if only is None:
            outcome = run_here(known, asked.jobs, asked.seed, asked.count)
        else:
            root = project_root()
            parts = (only, known.program, known.overrides, known.modules, root)
            outcome = run_local(*parts, retry=True, start=known.starter(root))
    again = wandb_runs.attached(sweep_state.read(asked, lint=False), known.wandb_state).entries
    trials.show(known.sweep, again, asked.json)
    if not asked.json and again:
        _next_steps(again)
    return outcome


def _progress_to_stderr(as_json: bool) -> Any:
    """Keep standard output to the JSON object alone."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def _next_steps(entries: Sequence[TrialEntry]) -> None:
    from mlmodeldev.slurm.commands.trials import ranked

    best = ranked(entries)[0]
    pictures = sorted((best.folder / "cka").glob("*.png"))
    print(f"folder:    {best.folder.parent}")
    for picture in pictures:
        print(f"CKA:       {picture}")
    if best.value is not None:
        print(f"best:      {best.folder / 'best'}")
        print(f"next:      python inference.py {best.folder} IMAGE_OR_TEXT")
        print("           python slurm/SlurmTrain.py status")


PLAN_HELP = "say what submit would run; start nothing"


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)
    wandb_runs.add_option(parser)


def run_plan(asked: argparse.Namespace) -> int:
    """Print the plan."""
    known = wandb_runs.with_wandb(sweep_state.read(asked), asked.wandb)
    if known.base.cluster.launcher == "local":
        return _here(known, asked.json)
    plan = on_cluster(known)
    if asked.json:
        print(json.dumps(plan.as_dict(), indent=1))
    else:
        print(in_words(plan))
        print(plan.script if plan.tasks else "", end="")
    return 0


def on_cluster(known: SweepState, only: Collection[str] | None = None) -> Plan:
    """Plan Slurm jobs; where there is no Slurm its limits are not known, and it is said.

    Raises:
        UsageError: Slurm would refuse, or never start them.
    """
    import sys

    from mlmodeldev.slurm.plan import make_plan
    from mlmodeldev.slurm.preflight import check, check_alone, local_disk_warning
    from mlmodeldev.slurm.query import queue, read_limits, slurm_is_here
    from mlmodeldev.slurm.submission import tasks, workers

    cluster = known.base.cluster
    if not slurm_is_here():
        check_alone(cluster)
        print("no Slurm on this machine: its limits are not checked", file=sys.stderr)
        return make_plan(known, {}, None, only=only)
    limits = read_limits(cluster)
    check(cluster, limits, known.folder.parent)
    if problem := local_disk_warning(known.folder.parent, limits.nodes):
        print(problem, file=sys.stderr)
    searches = known.sweep.method == "bayes" and only is None
    mine = (workers if searches else tasks)(known.folder)
    in_queue = len(queue()) if limits.rules.max_submit is not None else 0
    return make_plan(known, mine, limits, in_queue, only)


def in_words(plan: Plan) -> str:
    """Say in a line or two what would be submitted."""
    cluster, declared_trials = plan.cluster, len(plan.declared.entries)
    begun = "begun" if plan.searched else "declared"
    lines = [
        f"{declared_trials} trials {begun}, {plan.trials} to run in {len(plan.tasks)} jobs,"
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


def _here(known: SweepState, as_json: bool) -> int:
    from mlmodeldev.slurm.sweep_state import ENDED

    passed_over = ENDED | {"failed"}
    due = [e for e in known.entries if e.state not in passed_over and not e.runs_in_wandb]
    plan: dict[str, Any] = {
        "trials": [
            {"id": e.trial.id, "overrides": e.trial.overrides, "state": e.state}
            for e in known.entries
        ],
        "jobs": len(due),
        "gpu_hours": 0.0,  # this machine's hours are not counted
        "script": _script(due, known),
    }
    if as_json:
        print(json.dumps(plan, indent=1))
        return 0
    count, running = len(known.entries), sum(e.runs_in_wandb for e in known.entries)
    beside = f", {running} running elsewhere" if running else ""
    ended = count - len(due) - running
    print(f"{count} trials declared, {ended} ended or failed{beside}, {len(due)} to run here:")
    print(plan["script"], end="")
    return 0


def _script(due: Sequence[TrialEntry], known: SweepState) -> str:
    from mlmodeldev.project import project_root
    from mlmodeldev.slurm.local import entry_work

    start = known.starter(project_root())
    lines = []
    for entry in due:
        work = entry_work(entry, known.program, known.overrides)
        ours = ["python", "trainer.py", *work.overrides]
        lines.append(shlex.join(start.line(work, entry.trial.overrides) if start else ours))
    return "".join(f"{line}\n" for line in lines)


RETRY_HELP = "run the failed trials again, and no others, as they were submitted"


def add_retry_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)
    add_yes(parser)


def run_retry(asked: argparse.Namespace) -> int:
    """Submit what failed."""
    from mlmodeldev.slurm.commands.trials import in_queue
    from mlmodeldev.slurm.plan import state

    _recall(asked)
    known = sweep_state.read(asked)
    sweep_diff.print_changes(known, "retry")
    tasks = in_queue(known)
    failed = [e for e in known.entries if state(e, tasks.get(e.trial.id)) in ("failed", "lost")]
    if known.base.cluster.launcher == "local":
        return here(known, asked, failed)
    return to_cluster(known, asked.yes, asked.json, {e.trial.id for e in failed})


def _recall(asked: argparse.Namespace) -> None:
    """Add what the last submission was told; what is given now comes before it."""
    from mlmodeldev.slurm.submission import submissions

    made = submissions(sweep_state.folder_of(asked))
    if not made:
        return
    asked.overrides = merged(made[-1].overrides, sweep_state.fixed_overrides(asked, default=False))
    asked.cluster = None
    asked.count = made[-1].count if asked.count is None else asked.count
    asked.seed = asked.seed or made[-1].seed


def merged(before: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return overrides without those of the first that the second sets anew.

    >>> merged(["cluster=hec", "optimizer.lr=0.1"], ["cluster=mila"])
    ['optimizer.lr=0.1', 'cluster=mila']
    """
    keys = {_key(item) for item in given}
    return [*(item for item in before if _key(item) not in keys), *given]


def _key(item: str) -> str:
    return item.partition("=")[0].lstrip("+~")
