"""Submit a plan: one throttled array, or several one after the other, by submitit.

Example::

    submission = launch(plan, root)
    submission.arrays          # [("1201", [["gtsqtqg3"], ["yb5cla4g"]])]
"""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from mlmodeldev.atomic import atomic_write
from mlmodeldev.errors import UsageError
from mlmodeldev.secrets import warn_of_keys_left_out, without_keys
from mlmodeldev.slurm.entrypoint import Job, SearchJob
from mlmodeldev.slurm.local import trial_task
from mlmodeldev.slurm.plan import trials_at_once
from mlmodeldev.slurm.script import command, parameters, tasks_file
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
    cluster, sweep_state = plan.cluster, plan.sweep_state
    code = take_snapshot(root, sweep_state.folder.parent)
    warn_of_keys_left_out()
    submission = Submission.new(
        sweep_state.folder,
        code,
        gpus=cluster.gpus,
        restarts_after_kill=cluster.restarts_after_kill,
        overrides=sweep_state.user_overrides,
        count=sweep_state.count,
        seed=sweep_state.seed,
    )
    # what is edited later does not reach the jobs
    shutil.copy2(sweep_state.file, submission.sweep_file)
    start = sweep_state.starter(submission.snapshot)
    for tasks in plan.arrays:
        jobs = [_job(plan, task, submission, start) for task in tasks]
        trials = [[entry.trial.id for entry in task] for task in tasks]
        name = sweep_state.folder.name
        after = [submit(submission, cluster, name, jobs, trials, plan.throttle, after)]
    return submission


def _job(
    plan: Plan, entries: Sequence[TrialEntry], submission: Submission, start: Starter | None
) -> Job | SearchJob:
    state, slots = plan.sweep_state, trials_at_once(plan.cluster)
    if state.is_search and not entries:
        file, runs_dir = submission.sweep_file, state.folder.parent
        return SearchJob(
            file, runs_dir, state.overrides, slots, state.modules, state.seed, state.count
        )
    work = [trial_task(e, state.program, state.overrides, None, start) for e in entries]
    return Job(work, min(slots, len(work)), [state.program, *state.modules])


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
    with atomic_write(tasks_file(submission.folder, number)) as file:
        pickle.dump(list(jobs), file)
    executor = ArrayExecutor(submission.folder)
    executor.update_parameters(
        **parameters(cluster, name, submission.file, submission.snapshot, throttle, after)
    )
    submission.intend(trials)
    try:
        with without_keys():
            job = executor.submit_command(command(cluster, submission.folder, number), len(jobs))
    except (FailedJobError, FailedSubmissionError) as error:
        submission.intend(None)
        raise UsageError(f"sbatch refuses: {_reason(error)}") from None
    submission.add(job, trials)
    return job


class ArrayExecutor(SlurmExecutor):
    """submitit's, for a command instead of a pickled function and a file for each task."""

    def submit_command(self, command: str, count: int) -> str:
        """Submit an array of this command (a plain job of one task); return its number."""
        if count > 1:
            self.parameters["map_count"] = count
        return str(self._submit_command(command).job_id)


def _reason(error: Exception) -> str:
    errors = re.findall(r"error: (.+)", str(error))
    return "; ".join(dict.fromkeys(errors)) or str(error).strip()
