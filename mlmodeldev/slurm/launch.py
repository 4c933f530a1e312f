"""Submit a plan: one throttled array, or several one after the other, by submitit.

Example::

    submission = launch(plan, root)
    submission.arrays          # [("1201", [["gtsqtqg3"], ["yb5cla4g"]])]
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.secrets import tell_of_keys_left_out
from mlmodeldev.slurm import resources
from mlmodeldev.slurm.job import Job, SearchJob
from mlmodeldev.slurm.local import entry_work
from mlmodeldev.slurm.snapshot import take
from mlmodeldev.slurm.submission import Submission

if TYPE_CHECKING:
    from mlmodeldev.slurm.plan import Plan
    from mlmodeldev.slurm.reconcile import Entry
    from mlmodeldev.sweep.starter import Starter


def launch(plan: Plan, root: Path, after: Sequence[str] = ()) -> Submission:
    """Copy the code, submit the jobs, and note which runs what.

    Args:
        root: the project's folder.
        after: jobs that must end first, so that no more run at once than is allowed.

    Raises:
        UsageError: Slurm refuses; what it had taken before stays submitted and noted.
    """
    from mlmodeldev.slurm.arrays import submit

    cluster, sweep_folder = plan.cluster, plan.declared.folder
    code = take(root, sweep_folder.parent)
    tell_of_keys_left_out()
    submission = Submission.new(sweep_folder, code, **_facts(plan))
    # what is edited later does not reach the jobs
    shutil.copy2(plan.declared.file, submission.sweep_file)
    start = plan.declared.starter(submission.snapshot)
    for tasks in plan.arrays:
        jobs = [_job(plan, task, submission, start) for task in tasks]
        trials = [[entry.trial.id for entry in task] for task in tasks]
        job = submit(submission, cluster, sweep_folder.name, jobs, trials, plan.throttle, after)
        after = [job]
    return submission


def _facts(plan: Plan) -> dict[str, Any]:
    declared, cluster = plan.declared, plan.cluster
    return {
        "gpus": cluster.gpus,
        "restarts_after_kill": cluster.restarts_after_kill,
        "overrides": declared.given,
        "count": declared.count,
        "seed": declared.seed,
    }


def _job(
    plan: Plan, entries: Sequence[Entry], submission: Submission, start: Starter | None
) -> Job | SearchJob:
    declared, slots = plan.declared, resources.slots(plan.cluster)
    modules = [declared.program, *declared.modules]
    if declared.sweep.method == "bayes" and not entries:
        file, runs = submission.sweep_file, declared.folder.parent
        overrides, seed, count = declared.overrides, declared.seed, declared.count
        return SearchJob(file, runs, overrides, slots, declared.modules, seed, count)
    work = [entry_work(e, declared.program, declared.overrides, None, start) for e in entries]
    return Job(work, min(slots, len(work)), modules)
