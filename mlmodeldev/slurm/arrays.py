"""One array of jobs to Slurm, by submitit's script; what its tasks run lies in one file.

What is about to be submitted is written down first. Where the command is killed between ``sbatch``
and its own note of the answer, the next one finds the array in the queue by its script's path, and
each of its tasks finds what it has to run.

Example::

    job = submit(submission, cluster, "digits", [Job([work]), Job([other])], [["gts"], ["yb5"]])
"""

from __future__ import annotations

import pickle
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from mlmodeldev.atomic import whole_file
from mlmodeldev.errors import UsageError
from mlmodeldev.secrets import without_keys
from mlmodeldev.slurm import resources

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm.job import Job, SearchJob
    from mlmodeldev.slurm.submission import Submission


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
    with whole_file(file_of(submission.folder, number)) as file:
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
        **resources.parameters(cluster, name, throttle),
        "setup": resources.setup(cluster, submission.snapshot, submission.file),
        "teardown": resources.teardown(cluster),
        **({"dependency": f"afterany:{waits}"} if waits else {}),
    }


def command(cluster: Cluster, folder: Path, number: int) -> str:
    """Return what each task of a submission's array runs.

    Args:
        folder: of the submission.
        number: of the array in it, from 0.
    """
    what = ["-u", "-m", "mlmodeldev.slurm.entrypoint", str(file_of(folder, number))]
    return shlex.join([resources.python_of(cluster), *what])


def file_of(folder: Path, number: int) -> Path:
    """Return where it stands what the tasks of an array run."""
    return folder / f"tasks-{number}.pkl"


def _reason(error: Any) -> str:
    found = re.findall(r"error: (.+)", str(error))
    return "; ".join(dict.fromkeys(found)) or str(error).strip()
