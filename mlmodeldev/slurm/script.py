"""The batch script of an array: what it asks of Slurm, and what its shell runs.

submitit writes the script. Its public interface pickles a function and runs that by a command of
its own; ours runs `mlmodeldev.slurm.entrypoint`, so that a job needs no submitit. This is the only
place that calls what submitit does not promise to keep; tests/slurm/test_script.py fails where it
is gone.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster

SUBMISSION_VARIABLE = "MLMODELDEV_SUBMISSION"
"""Names the file that says which trials a job runs (`mlmodeldev.slurm.submission`)."""
JOB_VARIABLE = "MLMODELDEV_JOB"
"""What scontrol shows of the job, for an epilog in a container, which has no scontrol."""
EXIT_REQUEUE = 85
"""ERESTART: by which such an epilog says that the job is to be requeued."""


def batch_script(
    cluster: Cluster,
    name: str,
    folder: Path,
    snapshot: Path,
    count: int,
    throttle: int,
    number: int = 0,
    after: Iterable[str] = (),
) -> str:
    """Return the script of one of a submission's arrays, as submitit writes it.

    Args:
        name: of the jobs.
        folder: of the submission.
        snapshot: the code.
        count: tasks of the array; one is a plain job.
        throttle: array tasks at once.
        number: of the array in the submission, from 0.
        after: jobs that must end first.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    values = parameters(cluster, name, folder, snapshot, count, throttle, after)
    return _make_sbatch_string(
        command=command(cluster, folder, number, count),
        folder="logs",  # its own name for the log; ours is among the parameters
        map_count=count if count > 1 else None,
        use_srun=False,
        **values,
    )


def plain_script(cluster: Cluster, name: str, folder: Path, snapshot: Path, command: str) -> str:
    """Return the script of a job that runs no trial: the same request, and a command of its own.

    Args:
        name: of the job.
        folder: where its log goes, ``log.txt``.
        snapshot: the code.
        command: in a shell's words.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    values = parameters(cluster, name, folder, snapshot, 1, 1)
    log = str(folder.absolute() / "log.txt").replace("%", "%%")
    more = {**values.pop("additional_parameters"), "output": log}
    values |= {"teardown": [], "additional_parameters": more}
    return _make_sbatch_string(command=command, folder="logs", use_srun=False, **values)


def command(cluster: Cluster, folder: Path, number: int, count: int = 1) -> str:
    """Return what each task of a submission's array runs.

    Args:
        folder: of the submission.
        number: of the array in it, from 0.
        count: tasks of the array.
    """
    output = log_pattern(folder, count, "%t")
    # The script's environment reaches the step whatever SLURM_EXPORT_ENV says. And from
    # Slurm 22.05 on srun no longer inherits the job's --cpus-per-task.
    srun = ["srun", "--unbuffered", "--output", output, "--export=ALL", "--kill-on-bad-exit=1"]
    if "cpus_per_gpu" not in _own_options(cluster):
        srun.append(f"--cpus-per-task={cpus_per_task(cluster)}")
    module = ["-u", "-m", "mlmodeldev.slurm.entrypoint"]
    return shlex.join([*srun, *python_words(cluster), *module, str(tasks_file(folder, number))])


def tasks_file(folder: Path, number: int) -> Path:
    """Return the file that says what the tasks of a submission's array run."""
    return folder / f"tasks-{number}.pkl"


def script_file(folder: Path, number: int) -> Path:
    """Return the file that the script of a submission's array is written to."""
    return folder / f"tasks-{number}.sh"


def log_pattern(folder: Path, count: int, rank: str) -> str:
    """Return the name of a job's log as Slurm reads it.

    Args:
        folder: of the submission; a ``%`` in it is doubled, for Slurm replaces such letters.
        count: tasks of the array; one is a plain job.
        rank: of the task in its step; ``%t`` where Slurm knows it.
    """
    name = f"{'%A_%a' if count > 1 else '%j'}_{rank}_log.out"
    return f"{str(folder.absolute()).replace('%', '%%')}/{name}"


def python_words(cluster: Cluster) -> list[str]:
    """Return how the jobs start Python: an interpreter, or a command that ends with one.

    The name of a file counts as such, spaces and all; anything else is split as a shell would.
    """
    if not cluster.python:
        return [sys.executable]
    file = Path(cluster.python).expanduser()
    if file.is_file():
        return [str(file)]
    first, *others = shlex.split(cluster.python) or [cluster.python]
    return [str(Path(first).expanduser()), *others]


def parameters(
    cluster: Cluster,
    name: str,
    folder: Path,
    snapshot: Path,
    count: int,
    throttle: int,
    after: Iterable[str] = (),
) -> dict[str, Any]:
    """Return submitit's parameters of an array.

    Args:
        name: of the jobs.
        folder: of the submission.
        snapshot: the code.
        count: tasks of the array; one is a plain job.
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
        "cpus_per_task": cpus_per_task(cluster),
        "mem": _memory(cluster),
        **_gpus(cluster),
        "signal_delay_s": cluster.warn_seconds,
        "array_parallelism": throttle,
        "dependency": f"afterany:{waits}" if waits else None,
        "stderr_to_stdout": True,
        "wckey": None,  # submitit's own default is refused where wckeys are enforced
    }
    own = _own_options(cluster)
    requeue = {} if own.get("no_requeue") else {"requeue": True}
    more = {"output": log_pattern(folder, count, "0"), **requeue, **own}
    replaced = {_INSTEAD.get(key, key) for key in own} - _NO_OPTIONS
    chosen = {
        key: value for key, value in values.items() if value is not None and key not in replaced
    }
    return {
        **chosen,
        "wckey": None,
        "additional_parameters": {k: v for k, v in more.items() if v is not False},
        "setup": _setup(cluster, snapshot, folder / "jobs.json", count),
        "teardown": _teardown(python_words(cluster)),
    }


_INSTEAD = {"mem_per_cpu": "mem", "mem_per_gpu": "mem", "cpus_per_gpu": "cpus_per_task"}
"""Options that sbatch refuses beside others, which say the same in another way."""
_NO_OPTIONS = {"array_parallelism", "signal_delay_s", "stderr_to_stdout"}
"""Parameters of submitit that are no options of sbatch."""
CPUS = 4
"""CPUs of a process where the node's share of its GPUs is not known."""


def cpus_per_task(cluster: Cluster) -> int:
    """Return the CPUs of each process; where Slurm could not be asked for a share, a few."""
    own = _own_options(cluster).get("cpus_per_task", cluster.cpus_per_task)
    return CPUS if own == "auto" else int(own)


def memory_gb(cluster: Cluster) -> float:
    """Return the memory on each node in GiB; 0: the cluster's default."""
    return 0.0 if cluster.mem_gb in (None, "auto") else float(cluster.mem_gb or 0)


def _memory(cluster: Cluster) -> str | None:
    memory = memory_gb(cluster)
    return f"{round(memory * 1024)}M" if memory else None


def _own_options(cluster: Cluster) -> dict[str, str | int | bool]:
    """Return ``cluster.sbatch`` under submitit's names, which have ``_`` for ``-`` but for one."""

    def plain(name: str) -> str:
        return name if name == "open-mode" else name.replace("-", "_")

    return {plain(key): value for key, value in cluster.sbatch.items()}


def _gpus(cluster: Cluster) -> dict[str, Any]:
    each = cluster.tasks_per_node * cluster.gpus_per_task
    if not each:
        return {}
    if cluster.gpu_type:
        return {"gres": f"gpu:{cluster.gpu_type}:{each}"}
    return {"gpus_per_node": each}


def _setup(cluster: Cluster, snapshot: Path, submission: Path, count: int) -> list[str]:
    """Return the shell lines before the trials.

    The shell outlives the signals that its trials get, and their exit status, to say afterwards
    what becomes of the job: whatever the user's lines have set.
    """
    mine = shlex.quote(str(snapshot))
    # An array's numbers in a plain job are those of another job, which is not ours to requeue.
    plain = ["unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID"] if count == 1 else []
    return [
        *plain,
        "trap : USR1 USR2 TERM",
        *cluster.setup,
        *(["set +eu; trap - ERR; trap : USR1 USR2 TERM"] if cluster.setup else []),
        f"export PYTHONPATH={mine}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1",
        f"export {SUBMISSION_VARIABLE}={shlex.quote(str(submission))}",
    ]


def _teardown(python: Sequence[str]) -> list[str]:
    """Return the shell lines after the trials.

    A container has no scontrol: there the shell asks it, and requeues.
    """
    epilog = shlex.join([*python, "-m", "mlmodeldev.slurm.epilog"])
    if len(python) == 1:
        return [f'exec {epilog} "$?"']
    return [
        "status=$?",
        "task=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}",
        "task=${task:-$SLURM_JOB_ID}",
        f'export {JOB_VARIABLE}="$(scontrol -o show job "$task")"',
        f'{epilog} "$status"',
        "status=$?",
        f'[ "$status" = {EXIT_REQUEUE} ] && scontrol requeue "$task" && sleep 120',
        'exit "$status"',
    ]
