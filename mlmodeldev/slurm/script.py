"""The batch script of an array: what it asks of Slurm, and what its shell runs.

submitit writes the script. Its public interface pickles a function and runs that by a command of
its own; ours runs `mlmodeldev.slurm.entrypoint`, so that a job needs no submitit. This and
`mlmodeldev.slurm.submit` are the only places that call what submitit does not promise to keep;
tests/slurm/test_script.py fails where it is gone.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster

SUBMISSION_VARIABLE = "MLMODELDEV_SUBMISSION"
"""Names the file that says which trials a job runs (`mlmodeldev.slurm.submission`)."""


def batch_script(
    cluster: Cluster, name: str, folder: Path, snapshot: Path, count: int, throttle: int
) -> str:
    """Return the script of a submission's first array, as submitit writes it.

    Args:
        name: of the jobs.
        folder: of the submission.
        snapshot: the code.
        count: tasks of the array; one is a plain job.
        throttle: array tasks at once.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    return _make_sbatch_string(
        command=command(cluster, folder, 0),
        folder=folder,
        map_count=count if count > 1 else None,
        **parameters(cluster, name, folder / "jobs.json", snapshot, throttle),
    )


def command(cluster: Cluster, folder: Path, number: int) -> str:
    """Return what each task of a submission's array runs.

    Args:
        folder: of the submission.
        number: of the array in it, from 0.
    """
    module = ["-u", "-m", "mlmodeldev.slurm.entrypoint"]
    return shlex.join([python_of(cluster), *module, str(tasks_file(folder, number))])


def tasks_file(folder: Path, number: int) -> Path:
    """Return the file that says what the tasks of a submission's array run."""
    return folder / f"tasks-{number}.pkl"


def python_of(cluster: Cluster) -> str:
    """Return the interpreter of the jobs."""
    return str(Path(cluster.python).expanduser()) if cluster.python else sys.executable


def parameters(
    cluster: Cluster,
    name: str,
    submission: Path,
    snapshot: Path,
    throttle: int,
    after: Iterable[str] = (),
) -> dict[str, Any]:
    """Return submitit's parameters of an array.

    Args:
        name: of the jobs.
        submission: file that says which trials the jobs run.
        snapshot: the code.
        throttle: array tasks at once.
        after: jobs that must end first.
    """
    waits = ":".join(after)
    values: dict[str, Any] = {
        "job_name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "time": cluster.minutes,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "mem": None if cluster.mem_gb is None else f"{round(cluster.mem_gb * 1024)}M",
        **_gpus(cluster),
        "signal_delay_s": cluster.warn_seconds,
        "array_parallelism": throttle,
        "dependency": f"afterany:{waits}" if waits else None,
        "stderr_to_stdout": True,
        # From Slurm 22.05 on srun no longer inherits the job's --cpus-per-task.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_task}"],
        "additional_parameters": {"requeue": True, **cluster.sbatch},
        "setup": _setup(cluster, snapshot, submission),
        "teardown": [f'exec {shlex.quote(python_of(cluster))} -m mlmodeldev.slurm.epilog "$?"'],
    }
    return {key: value for key, value in values.items() if value is not None}


def _gpus(cluster: Cluster) -> dict[str, Any]:
    each = cluster.tasks_per_node * cluster.gpus_per_task
    if not each:
        return {}
    if cluster.gpu_type:
        return {"gres": f"gpu:{cluster.gpu_type}:{each}"}
    return {"gpus_per_node": each}


def _setup(cluster: Cluster, snapshot: Path, submission: Path) -> list[str]:
    """Return the shell lines before the trials.

    The shell outlives the signals that its trials get, to say afterwards what becomes of the job.
    """
    return [
        "trap : USR1 USR2 TERM",
        *cluster.setup,
        f"export PYTHONPATH={shlex.quote(str(snapshot))} PYTHONSAFEPATH=1",
        f"export {SUBMISSION_VARIABLE}={shlex.quote(str(submission))}",
    ]
