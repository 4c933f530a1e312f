"""What Slurm's commands may see of the environment: nothing of the job that they are called from.

``submit`` is called on login nodes, and inside of jobs: in Jupyter or VS Code on a compute node, in
a pipeline's array. sbatch would hand that job's ``SLURM_*`` on to ours, which would bind the wrong
CPUs, take another's memory, and requeue the job that they were submitted from. Variables that
choose sbatch's options come before the script's lines, so only those are left that say what the
settings leave open.

Example::

    run_command("squeue", environment=slurm_environment())
    run_command("sbatch", "script.sh", environment=sbatch_environment(settings.cluster))
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster

_OF_JOBS = ("SLURM_", "SLURMD_", "SRUN_")
_OF_SBATCH = "SBATCH_"
_OF_QUESTIONS = ("SQUEUE_", "SACCT_", "SCONTROL_", "SINFO_", "SCANCEL_")
"""Formats and filters of the user's own, which would hide or reshape what is read."""
_KEPT = "SLURM_CONF"
_CHOICES = ("account", "partition", "qos", "constraint")
_OPEN_CHOICES = ("reservation", "clusters", "wckey", "export", "get_user_env")
"""Options that have a variable and no setting of their own, and change no promise of ours."""


def slurm_environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a command that asks Slurm."""
    left_out = (*_OF_JOBS, _OF_SBATCH, *_OF_QUESTIONS)
    return {n: v for n, v in variables.items() if n == _KEPT or not n.startswith(left_out)}


def sbatch_environment(
    cluster: Cluster, variables: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment of sbatch, which is also what its job begins with.

    Outside of a job the user's own defaults hold for what the settings leave open, such as
    SBATCH_ACCOUNT. Inside of one nothing tells whether a variable is the user's or the job's.
    """
    names = () if is_in_job(variables) else default_names(cluster)
    defaults = {name: variables[name] for name in names if name in variables}
    return {**slurm_environment(variables), **defaults}


def is_in_job(variables: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process belongs to a job, or its shell does."""
    return any(variables.get(name) for name in ("SLURM_JOB_ID", "SLURM_JOBID"))


def default_names(cluster: Cluster) -> list[str]:
    """Return the variables that may choose an option, for the settings do not."""
    open_names = [name for name in _CHOICES if getattr(cluster, name) is None]
    own = {key.replace("-", "_") for key in cluster.sbatch}
    names = [*open_names, *(name for name in _OPEN_CHOICES if name not in own)]
    return [f"{_OF_SBATCH}{name.upper()}" for name in names]


def left_out_choices(cluster: Cluster, variables: Mapping[str, str] = os.environ) -> list[str]:
    """Return the user's defaults that are not taken, for they may be the outer job's."""
    charged = [f"{_OF_SBATCH}{name.upper()}" for name in _CHOICES if not getattr(cluster, name)]
    return [n for n in charged if n in variables] if is_in_job(variables) else []
