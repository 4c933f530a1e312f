"""``SlurmTrain.py plan``: what submit would run; nothing is started."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm import sweep_state, wandb_runs

if TYPE_CHECKING:
    from mlmodeldev.slurm.plan import Plan
    from mlmodeldev.slurm.reconcile import Entry
    from mlmodeldev.slurm.sweep_state import Declared

HELP = "say what submit would run; start nothing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)
    wandb_runs.add_option(parser)


def run(asked: argparse.Namespace) -> int:
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


def on_cluster(known: Declared, only: Collection[str] | None = None) -> Plan:
    """Plan Slurm jobs; where there is no Slurm its limits are not known, and it is said.

    Raises:
        UsageError: Slurm would refuse, or never start them.
    """
    import sys

    from mlmodeldev.slurm.plan import make_plan
    from mlmodeldev.slurm.preflight import check, check_alone
    from mlmodeldev.slurm.query import ask_limits, queue, slurm_is_here
    from mlmodeldev.slurm.storage import doubt
    from mlmodeldev.slurm.tasks import tasks, workers

    cluster = known.base.cluster
    if not slurm_is_here():
        check_alone(cluster)
        print("no Slurm on this machine: its limits are not checked", file=sys.stderr)
        return make_plan(known, {}, None, only=only)
    limits = ask_limits(cluster)
    check(cluster, limits, known.folder.parent)
    if problem := doubt(known.folder.parent, limits.nodes):
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


def _here(known: Declared, as_json: bool) -> int:
    from mlmodeldev.slurm.reconcile import ENDED

    passed_over = ENDED | {"failed"}
    due = [e for e in known.entries if e.state not in passed_over and not e.runs_elsewhere]
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
    count, running = len(known.entries), sum(e.runs_elsewhere for e in known.entries)
    beside = f", {running} running elsewhere" if running else ""
    ended = count - len(due) - running
    print(f"{count} trials declared, {ended} ended or failed{beside}, {len(due)} to run here:")
    print(plan["script"], end="")
    return 0


def _script(due: Sequence[Entry], known: Declared) -> str:
    from mlmodeldev.settings.command_line import config_root
    from mlmodeldev.slurm.local import entry_work

    start = known.starter(config_root())
    lines = []
    for entry in due:
        work = entry_work(entry, known.program, known.overrides)
        ours = ["python", "trainer.py", *work.overrides]
        lines.append(shlex.join(start.line(work, entry.trial.overrides) if start else ours))
    return "".join(f"{line}\n" for line in lines)
