"""Submit a plan: one throttled array, or several one after the other, by submitit.

Example::

    submission = launch(plan, root)
    submission.arrays          # [("1201", [["gtsqtqg3"], ["yb5cla4g"]])]
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.key_guard import tell_of_keys_left_out, without_keys
from mlmodeldev.slurm import resources
from mlmodeldev.slurm.job import Job, SearchJob
from mlmodeldev.slurm.local import entry_work
from mlmodeldev.slurm.snapshot import take
from mlmodeldev.slurm.submission import Submission

if TYPE_CHECKING:
    from mlmodeldev.slurm.planning import Plan
    from mlmodeldev.slurm.reconcile import Entry


def launch(plan: Plan, root: Path, after: Sequence[str] = ()) -> Submission:
    """Copy the code, submit the jobs, and note which runs what.

    Args:
        root: the project's folder.
        after: jobs that must end first, so that no more run at once than is allowed.

    Raises:
        UsageError: Slurm refuses; what it had taken before stays submitted and noted.
    """
    cluster, sweep_folder = plan.cluster, plan.declared.folder
    code = take(root, sweep_folder.parent)
    tell_of_keys_left_out()
    submission = Submission.new(
        sweep_folder, code, gpus=cluster.gpus, restarts_after_kill=cluster.restarts_after_kill
    )
    submission.save()
    # what is edited later does not reach the jobs
    shutil.copy2(plan.declared.file, submission.folder / "sweep.yaml")
    for tasks in plan.arrays:
        job = _submit(plan, submission, tasks, after)
        submission.add(job, [[entry.trial.id for entry in task] for task in tasks])
        after = [job]
    return submission


def _submit(
    plan: Plan, submission: Submission, tasks: Sequence[Sequence[Entry]], after: Iterable[str]
) -> str:
    """Submit one array; return its number."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = SlurmExecutor(submission.folder, python=resources.python_of(plan.cluster))
    asked = resources.parameters(plan.cluster, plan.declared.folder.name, plan.throttle)
    waits = "afterany:" + ":".join(after) if after else None
    executor.update_parameters(
        **asked,
        setup=resources.setup(plan.cluster, submission.snapshot, submission.file),
        teardown=resources.teardown(plan.cluster),
        **({"dependency": waits} if waits else {}),
    )
    try:
        with without_keys(), executor.batch():
            jobs = [executor.submit(_job(plan, task, submission)) for task in tasks]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UsageError(f"sbatch refuses: {_reason(error)}") from None
    return str(jobs[0].job_id).partition("_")[0]


def _job(plan: Plan, entries: Sequence[Entry], submission: Submission) -> Job | SearchJob:
    declared, slots = plan.declared, resources.slots(plan.cluster)
    modules = [declared.program, *declared.modules]
    if declared.sweep.method == "bayes":
        file, runs = submission.folder / "sweep.yaml", declared.folder.parent
        overrides, seed, count = declared.overrides, declared.seed, declared.count
        return SearchJob(file, runs, overrides, slots, declared.modules, seed, count)
    start = declared.starter(submission.snapshot)
    work = [entry_work(e, declared.program, declared.overrides, None, start) for e in entries]
    return Job(work, min(slots, len(work)), modules)


def _reason(error: Any) -> str:
    found = re.findall(r"error: (.+)", str(error))
    return "; ".join(dict.fromkeys(found)) or str(error).strip()
