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
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster

_OF_JOBS = ("SLURM_", "SLURMD_", "SRUN_")
_OF_SBATCH = "SBATCH_"
_OF_QUESTIONS = ("SQUEUE_", "SACCT_", "SCONTROL_", "SINFO_", "SCANCEL_")
"""Formats and filters of the user's own, which would hide or reshape what is read."""
_KEPT = "SLURM_CONF"
_CHOICES = ("account", "partition", "qos", "constraint")
_OPEN_CHOICES = ("reservation", "wckey", "export", "get_user_env")
"""Options that have a variable and no setting of their own, and change no promise of ours."""
_OF_CLUSTERS = ("SBATCH_CLUSTERS", "SLURM_CLUSTERS")


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
    defaults = {name: variables[name] for name in names if variables.get(name)}
    return {**slurm_environment(variables), **defaults}


@dataclass(frozen=True)
class Choice:
    """What sbatch will follow in one of its choices, and where that is set."""

    where: str
    """``cluster.partition``, ``cluster.sbatch.partition`` or ``SBATCH_PARTITION``."""
    value: str | None
    """None: left to Slurm."""


def choices(cluster: Cluster, variables: Mapping[str, str] = os.environ) -> dict[str, Choice]:
    """Return account, partition, QOS and constraint as sbatch will follow them."""
    return {name: _choice(cluster, name, variables) for name in _CHOICES}


def _choice(cluster: Cluster, name: str, variables: Mapping[str, str]) -> Choice:
    option, variable = cluster.sbatch.get(name), f"{_OF_SBATCH}{name.upper()}"
    if option is not None:  # it replaces the setting; false leaves the option out
        return Choice(f"cluster.sbatch.{name}", None if option is False else str(option))
    setting = getattr(cluster, name)
    if setting is None and variables.get(variable) and not is_in_job(variables):
        return Choice(variable, variables[variable])
    return Choice(f"cluster.{name}", setting)


def with_choices(cluster: Cluster, variables: Mapping[str, str] = os.environ) -> Cluster:
    """Return the settings with the choices that sbatch will follow, wherever they are set.

    What is read and compared of the cluster is that of the partition that jobs really go to.
    """
    made = choices(cluster, variables)
    return cluster.model_copy(update={name: choice.value for name, choice in made.items()})


def chosen_clusters(cluster: Cluster, variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return by where it is set which cluster is asked for; empty: none, so it is this one."""
    names = () if is_in_job(variables) else _OF_CLUSTERS
    chosen = {name: variables[name] for name in names if variables.get(name)}
    option = cluster.sbatch.get("clusters", False)
    return chosen if option is False else {**chosen, "cluster.sbatch.clusters": str(option)}


def is_in_job(variables: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process belongs to a job, or its shell does."""
    return any(variables.get(name) for name in ("SLURM_JOB_ID", "SLURM_JOBID"))


def default_names(cluster: Cluster) -> list[str]:
    """Return the variables that may choose an option, for the settings do not."""
    open_names = [name for name in _CHOICES if getattr(cluster, name) is None]
    own = {key.replace("-", "_") for key in cluster.sbatch}
    names = [name for name in (*open_names, *_OPEN_CHOICES) if name not in own]
    return [f"{_OF_SBATCH}{name.upper()}" for name in names]


def left_out_choices(cluster: Cluster, variables: Mapping[str, str] = os.environ) -> list[str]:
    """Return the user's defaults that are not taken, for they may be the outer job's."""
    left_open = [n for n in _CHOICES if not getattr(cluster, n) and n not in cluster.sbatch]
    names = [f"{_OF_SBATCH}{name.upper()}" for name in left_open]
    return [n for n in names if n in variables] if is_in_job(variables) else []
