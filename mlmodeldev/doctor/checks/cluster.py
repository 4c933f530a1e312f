"""Slurm: whether it answers, and whether it would take the jobs that ``submit`` is about to make.

`submit`'s own code decides (`mlmodeldev.slurm.preflight`, `plan_on_cluster`), so that nothing is
fine here that is refused there.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlmodeldev.doctor.line import Line, Scope, fail, ok, warn
from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.query import read_queue, run_command, slurm_is_here

_COMMAND = "python slurm/SlurmTrain.py"
_LISTS = {
    "partition": "sinfo -o '%P %a %l %D %G'",
    "account": "sacctmgr show assoc user=$USER format=account,partition,qos",
    "qos": "sacctmgr show qos format=name,maxwall,maxtrespu,maxsubmitpu",
    "minutes": "sinfo -o '%P %l'",
    "gpus_per_task": "sinfo -o '%P %D %G'",
    "gpu_type": "sinfo -o '%P %G'",
    "nodes": "sinfo -o '%P %D'",
    "cpus_per_task": "sinfo -o '%P %c'",
    "mem_gb": "sinfo -o '%P %m'",
}
"""What lists the allowed values of a setting."""


def reachable(scope: Scope) -> Iterator[Line]:
    """Ask the controller, where there is a Slurm."""
    name, here = scope.settings.cluster.name, slurm_is_here()
    if not here and scope.submits:
        yield fail(f"cluster={name}: no Slurm on this machine", f"{_COMMAND} cluster=local")
    elif not here:
        yield ok("no Slurm on this machine: trials run here")
    elif not scope.submits:
        yield ok(f"Slurm is here, but cluster={name} runs trials on this machine")
    else:
        try:
            read_queue()
        except UsageError as error:
            yield fail(str(error), "scontrol ping")
            return
        yield ok(f"Slurm answers ({' '.join(run_command('scontrol', '--version').stdout.split())})")


def allowed(scope: Scope) -> Iterator[Line]:
    """Hold the settings against the partition, the account, the QOS and the nodes."""
    from mlmodeldev.slurm.limits import read_limits
    from mlmodeldev.slurm.outer_job import with_choices
    from mlmodeldev.slurm.preflight import check_cluster, local_disk_warning

    cluster = scope.settings.cluster
    if not scope.submits or not slurm_is_here():
        return
    try:
        limits = read_limits(cluster)
        check_cluster(cluster, limits, scope.runs)
    except UsageError as error:
        yield fail(str(error), mend_of(str(error)))
        return
    cluster = with_choices(cluster)
    partitions = limits.partitions_of(cluster.partition)
    gpus = sum(node.gpus for node in limits.nodes_of(cluster.partition))
    what = f"partition {','.join(p.name for p in partitions)}: {gpus} GPUs in all"
    if accounts := limits.rules.accounts:
        what += f"; account {cluster.account or ','.join(sorted(accounts))}"
    if cluster.qos:
        what += f"; QOS {cluster.qos}"
    yield ok(what)
    if problem := local_disk_warning(scope.runs, limits.nodes):
        yield warn(problem, f"{_COMMAND} doctor --job")


def contradictions(scope: Scope) -> Iterator[Line]:
    """Look for settings that contradict each other; Slurm is not asked."""
    from mlmodeldev.slurm.preflight import check_settings

    if scope.submits:
        try:
            check_settings(scope.settings.cluster)
        except UsageError as error:
            yield fail(str(error), mend_of(str(error)))


def mend_of(refusal: str) -> str:
    """Return the command that helps where a setting of the cluster is refused."""
    if variable := re.match(r"(SBATCH_CLUSTERS|SLURM_CLUSTERS)=", refusal):
        return f"unset {variable[1]}"
    match = re.match(r"(?:cluster\.|SBATCH_)(\w+)=", refusal)
    named = match[1].lower() if match else ""
    near = re.search(r"did you mean '([^']+)'", refusal)
    if named and near:
        return f"{_COMMAND} doctor cluster.{named}={near[1]}"
    if named == "python":
        return f"{_COMMAND} doctor cluster.python=$PWD/.venv/bin/python"
    if named and (least := re.search(r"at least (\d+) minutes", refusal)):
        return f"{_COMMAND} doctor cluster.minutes={least[1]}"
    if refusal.startswith("artefacts.runs_dir"):
        return f"{_COMMAND} doctor artefacts.runs_dir=DIR"
    return _LISTS.get(named, f"{_COMMAND} plan")


def jobs_python(scope: Scope) -> Iterator[Line]:
    """Look for the interpreter of the jobs."""
    from mlmodeldev.slurm.preflight import check_python
    from mlmodeldev.slurm.script import python_words

    if not scope.submits:
        return
    try:
        check_python(scope.settings.cluster)
    except UsageError as error:
        yield fail(str(error), mend_of(str(error)))
        return
    yield ok(f"jobs run {' '.join(python_words(scope.settings.cluster))}")


def test_only(scope: Scope) -> Iterator[Line]:
    """Let sbatch look at the script of one such job; nothing is submitted."""
    from mlmodeldev.slurm.limits import read_limits
    from mlmodeldev.slurm.outer_job import sbatch_environment
    from mlmodeldev.slurm.preflight import check_cluster
    from mlmodeldev.slurm.script import batch_script
    from mlmodeldev.slurm.share import with_share
    from mlmodeldev.slurm.submit import refusal

    if not scope.submits or not slurm_is_here():
        return
    limits = read_limits(scope.settings.cluster)
    try:
        check_cluster(scope.settings.cluster, limits, scope.runs)
    except UsageError:
        return  # which is a line of its own, with a better mend
    cluster = with_share(scope.settings.cluster, limits)
    there = scope.runs / "doctor"
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        script = Path(folder, "job.sh")
        script.write_text(batch_script(cluster, "doctor", there, there, 1, 1))
        environment = sbatch_environment(cluster)
        done = run_command("sbatch", "--test-only", str(script), environment=environment)
    if done.returncode:
        why = refusal(done.stderr, done.stdout)
        yield fail(f"sbatch would refuse such a job: {why}", f"{_COMMAND} plan")
        return
    start = re.search(r"to start at (\S+)", done.stderr + done.stdout)
    yield ok(f"sbatch would take such a job{f', to start at {start[1]}' if start else ''}")


def submission(scope: Scope) -> Iterator[Line]:
    """Make the plan that ``submit`` would make."""
    if scope.sweep is None or not scope.submits or not slurm_is_here():
        return
    from mlmodeldev.slurm.commands.launch import plan_on_cluster

    try:
        plan = plan_on_cluster(scope.sweep)
    except UsageError as error:
        search = "--count" in str(error)
        yield fail(str(error), f"{_COMMAND} --count 20" if search else mend_of(str(error)))
        return
    most = plan.cluster.confirm_gpu_hours
    if plan.gpu_hours > most:
        what = f"{plan.gpu_hours:g} GPU-hours are more than cluster.confirm_gpu_hours={most:g}"
        yield warn(f"{what}: submit asks for a yes", f"{_COMMAND} --yes")
    else:
        yield ok(f"submit would run {plan.trials} trials in {len(plan.tasks)} jobs")
