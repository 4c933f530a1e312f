"""Submit a plan: one throttled array, or several one after the other, by submitit.

Example::

    submission = launch(plan, root)
    submission.arrays          # [("1201", [["gtsqtqg3"], ["yb5cla4g"]])]
"""

from __future__ import annotations

import pickle
import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from mlmodeldev.atomic import atomic_write
from mlmodeldev.errors import UsageError
from mlmodeldev.secrets import warn_of_keys_left_out, without_keys
from mlmodeldev.slurm.entrypoint import Job, SearchJob
from mlmodeldev.slurm.local import entry_work
from mlmodeldev.slurm.plan import parameters, python_of, setup, teardown, trials_at_once
from mlmodeldev.slurm.snapshot import take_snapshot
from mlmodeldev.slurm.submission import Submission

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm.plan import Plan
    from mlmodeldev.slurm.sweep_state import TrialEntry
    from mlmodeldev.sweep.starter import Starter


def launch(plan: Plan, root: Path, after: Sequence[str] = ()) -> Submission:
    """Copy the code, submit the jobs, and note which runs what.

    Args:
        root: the project's folder.
        after: jobs that must end first, so that no more run at once than is allowed.

    Raises:
        UsageError: Slurm refuses; what it had taken before stays submitted and noted.
    """

    cluster, sweep_folder = plan.cluster, plan.declared.folder
    code = take_snapshot(root, sweep_folder.parent)
    warn_of_keys_left_out()
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
    plan: Plan, entries: Sequence[TrialEntry], submission: Submission, start: Starter | None
) -> Job | SearchJob:
    declared, slots = plan.declared, trials_at_once(plan.cluster)
    modules = [declared.program, *declared.modules]
    if declared.sweep.method == "bayes" and not entries:
        file, runs = submission.sweep_file, declared.folder.parent
        overrides, seed, count = declared.overrides, declared.seed, declared.count
        return SearchJob(file, runs, overrides, slots, declared.modules, seed, count)
    work = [entry_work(e, declared.program, declared.overrides, None, start) for e in entries]
    return Job(work, min(slots, len(work)), modules)


class _Executor(SlurmExecutor):
    """submitit's, without a file for each task."""

    def hand_over(self, command: str, count: int) -> str:
        """Submit an array of this command (a plain job of one task); return its number."""
        if count > 1:
            self.parameters["map_count"] = count
        return str(self._submit_command(command).job_id)


def submit(
    submission: Submission,
    cluster: Cluster,
    name: str,
    jobs: Sequence[Job | SearchJob],
    trials: Sequence[Sequence[str]],
    throttle: int = 1,
    after: Iterable[str] = (),
) -> str:
    """Submit one array, and note it; return its number.

    Args:
        name: of the jobs.
        jobs: what each task does, and
        trials: the identities of its trials.
        throttle: tasks at once.
        after: jobs that must end first.

    Raises:
        UsageError: Slurm refuses.
    """
    number = len(submission.arrays)
    with atomic_write(file_of(submission.folder, number)) as file:
        pickle.dump(list(jobs), file)
    executor = _Executor(submission.folder)
    executor.update_parameters(**_parameters(submission, cluster, name, throttle, after))
    submission.intend(trials)
    try:
        with without_keys():
            job = executor.hand_over(command(cluster, submission.folder, number), len(jobs))
    except (FailedJobError, FailedSubmissionError) as error:
        submission.intend(None)
        raise UsageError(f"sbatch refuses: {_reason(error)}") from None
    submission.add(job, trials)
    return job


def _parameters(
    submission: Submission, cluster: Cluster, name: str, throttle: int, after: Iterable[str]
) -> dict[str, Any]:
    waits = ":".join(after)
    return {
        **parameters(cluster, name, throttle),
        "setup": setup(cluster, submission.snapshot, submission.file),
        "teardown": teardown(cluster),
        **({"dependency": f"afterany:{waits}"} if waits else {}),
    }


def command(cluster: Cluster, folder: Path, number: int) -> str:
    """Return what each task of a submission's array runs.

    Args:
        folder: of the submission.
        number: of the array in it, from 0.
    """
    what = ["-u", "-m", "mlmodeldev.slurm.entrypoint", str(file_of(folder, number))]
    return shlex.join([python_of(cluster), *what])


def file_of(folder: Path, number: int) -> Path:
    """Return where it stands what the tasks of an array run."""
    return folder / f"tasks-{number}.pkl"


def _reason(error: Any) -> str:
    found = re.findall(r"error: (.+)", str(error))
    return "; ".join(dict.fromkeys(found)) or str(error).strip()
