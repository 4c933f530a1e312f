"""From the settings under ``cluster`` to what sbatch is asked for, by submitit's names.

Example::

    parameters(settings.cluster, "digits", throttle=4)["gpus_per_node"]
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster

SUBMISSION_VARIABLE = "MLMODELDEV_SUBMISSION"
"""Names the file that says which trials a job runs (`mlmodeldev.slurm.submission`)."""


def python_of(cluster: Cluster) -> str:
    """Return the interpreter of the jobs."""
    return str(Path(cluster.python).expanduser()) if cluster.python else sys.executable


def concurrent_jobs(cluster: Cluster) -> int:
    """Return how many jobs may run at once, by ``max_jobs`` and ``max_gpus``; 0: not even one."""
    if not cluster.gpus:
        return cluster.max_jobs
    return min(cluster.max_jobs, cluster.max_gpus // cluster.gpus)


def slots(cluster: Cluster) -> int:
    """Return how many trials a job runs at once."""
    if cluster.trials_per_gpu == 1:
        return 1  # a trial has all GPUs of its job
    return cluster.trials_per_gpu * max(1, cluster.gpus)


def trials_per_task(cluster: Cluster) -> int:
    """Return how many trials a job runs in all."""
    return max(cluster.trials_per_job, slots(cluster))


def parameters(cluster: Cluster, name: str, throttle: int) -> dict[str, Any]:
    """Return submitit's parameters of an array.

    Args:
        name: of the jobs.
        throttle: array tasks at once.
    """
    asked: dict[str, Any] = {
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
        "stderr_to_stdout": True,
        # From Slurm 22.05 on srun no longer inherits the job's --cpus-per-task.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_task}"],
        "additional_parameters": {"requeue": True, **cluster.sbatch},
    }
    return {key: value for key, value in asked.items() if value is not None}


def _gpus(cluster: Cluster) -> dict[str, Any]:
    each = cluster.tasks_per_node * cluster.gpus_per_task
    if not each:
        return {}
    if cluster.gpu_type:
        return {"gres": f"gpu:{cluster.gpu_type}:{each}"}
    return {"gpus_per_node": each}


def setup(cluster: Cluster, snapshot: Path, submission: Path) -> list[str]:
    """Return the shell lines before the trials.

    The shell outlives the signals that its trials get, to say afterwards what becomes of the job.
    """
    return [
        "trap : USR1 USR2 TERM",
        *cluster.setup,
        f"export PYTHONPATH={shlex.quote(str(snapshot))} PYTHONSAFEPATH=1",
        f"export {SUBMISSION_VARIABLE}={shlex.quote(str(submission))}",
    ]


def teardown(cluster: Cluster) -> list[str]:
    """Return the shell lines after the trials."""
    return [f'exec {shlex.quote(python_of(cluster))} -m mlmodeldev.slurm.epilog "$?"']
