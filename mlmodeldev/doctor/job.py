"""``doctor --job``: a short job that makes the checks on a compute node, and brings their lines.

It asks for what a trial's job asks for, on one node, and runs the same copy of the code, so that
what it says is true of the trials.

Example::

    for line in lines_of_job(scope, seconds=600):
        print(line.where, line.what)
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.atomic import write_json, write_text, writing_to
from mlmodeldev.doctor.line import Line, Scope
from mlmodeldev.errors import UsageError
from mlmodeldev.secrets import clean_environment, masked
from mlmodeldev.slurm.outer_job import sbatch_environment
from mlmodeldev.slurm.query import read_queue, run_command, slurm_is_here
from mlmodeldev.slurm.script import plain_script, python_words
from mlmodeldev.slurm.submit import SBATCH_SECONDS, number_here, refusal
from mlmodeldev.tracking.wandb_api import host, key_for

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster

FOLDER = ".doctor"
"""Below the runs folder; each job has a folder in it while it runs."""
REQUEST, ANSWER, LOG = "request.json", "lines.json", "log.txt"
MINUTES = 10
_LOOK_SECONDS = 1.0
_LATE_SECONDS = 15.0
"""How long a file that a node has written may take to be seen here."""


def refuse_without_jobs(scope: Scope) -> None:
    """Refuse where there is no cluster.

    Raises:
        UsageError: trials run on this machine, or there is no Slurm.
    """
    if not scope.submits:
        name = scope.settings.cluster.name
        raise UsageError(f"--job: cluster={name} runs trials on this machine; cluster=generic")
    if not slurm_is_here():
        raise UsageError("--job: there is no Slurm on this machine (sbatch)")


def lines_of_job(scope: Scope, seconds: float) -> Iterator[Line]:
    """Submit the job, wait for it, and yield its lines; it is cancelled if it takes too long.

    Args:
        scope: what is looked at.
        seconds: how long to wait.
    """
    with writing_to(scope.runs):
        parent = scope.runs / FOLDER
        parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=parent))
    try:
        yield from _run(scope, place, seconds)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # another's is there still
            parent.rmdir()


def _run(scope: Scope, place: Path, seconds: float) -> Iterator[Line]:
    from mlmodeldev.slurm.snapshot import take_snapshot

    try:
        code = take_snapshot(scope.root, scope.runs)
        job = _submit(scope, place, code)
    except UsageError as error:
        yield Line("FAIL", str(error), "python slurm/SlurmTrain.py plan", "job")
        return
    try:
        answer = _wait(place / ANSWER, job, seconds)
    finally:
        run_command("scancel", job)
    if isinstance(answer, Line):
        yield answer
        return
    for row in answer:
        yield Line(**row)


def _submit(scope: Scope, place: Path, code: Path) -> str:
    """Hand the job to sbatch; return its number.

    Raises:
        UsageError: it refuses.
    """
    from mlmodeldev.slurm.limits import read_limits
    from mlmodeldev.slurm.preflight import refuse_other_clusters
    from mlmodeldev.slurm.share import with_share

    refuse_other_clusters(scope.settings.cluster)
    cluster = _short(with_share(scope.settings.cluster, read_limits(scope.settings.cluster)))
    request = {
        "overrides": list(scope.overrides),
        "runs": str(scope.runs),
        "data": str(scope.data),
        "login_key": key_for(host()) is not None,
    }
    write_json(place / REQUEST, request)
    words = [*python_words(cluster), "-u", "-m", "mlmodeldev.doctor.on_node", str(place)]
    script = place / "job.sh"
    write_text(script, plain_script(cluster, "doctor", place, code, shlex.join(words)))
    environment = clean_environment(sbatch_environment(cluster))
    command = ("sbatch", "--parsable", str(script))
    done = run_command(*command, seconds=SBATCH_SECONDS, environment=environment)
    number = "" if done.returncode else number_here(done.stdout)
    if not number:
        raise UsageError(f"sbatch refuses: {refusal(done.stderr, done.stdout)}")
    return number


def _short(cluster: Cluster) -> Cluster:
    """Return what the job asks for: that of a trial on one node, for a few minutes."""
    least = -(-cluster.warn_seconds // 60) + 1
    return cluster.model_copy(
        update={
            "nodes": 1,
            "minutes": max(least, min(cluster.minutes, MINUTES)),
            "sbatch": {**cluster.sbatch, "requeue": False},
        }
    )


def _wait(answer: Path, job: str, seconds: float) -> list[dict[str, Any]] | Line:
    """Return the rows of the answer, or the line that says why there is none."""
    end = time.monotonic() + seconds
    gone: float | None = None
    reason = ""
    while time.monotonic() < end:
        if answer.exists():
            return list(json.loads(answer.read_text()))
        queue = read_queue([job])
        if job in queue:
            reason = f"{queue[job].state}, {queue[job].reason}"
        else:
            gone = gone or time.monotonic()
            if time.monotonic() - gone > _LATE_SECONDS:
                return _without_answer(answer, job)
        time.sleep(_LOOK_SECONDS)
    what = f"job {job} did not answer within {seconds:.0f} s ({reason}), and was cancelled"
    mend = "python slurm/SlurmTrain.py doctor --job --wait 3600"
    return Line("WARN", what, mend, "job")


def _without_answer(answer: Path, job: str) -> Line:
    """Return the line of a job that ended, and whose answer can't be seen here."""
    log = answer.with_name(LOG)
    printed = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    if not printed:
        what = (
            f"job {job} ended, and what it wrote is not seen here: does {answer.parents[2]} lie on"
            " a file system that all nodes share?"
        )
        return Line("FAIL", what, "python slurm/SlurmTrain.py artefacts.runs_dir=DIR", "job")
    what = f"job {job} ended without an answer: {masked(printed[-1], 300)}"
    return Line("FAIL", what, f"sacct -j {job} -o JobID,State,ExitCode,NodeList", "job")
