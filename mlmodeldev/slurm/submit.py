"""Submit a plan: one throttled array, or several one after the other.

Example::

    submission = launch(plan, root)
    submission.arrays          # [("1201", [["gtsqtqg3"], ["yb5cla4g"]])]
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.atomic import atomic_write, write_text
from mlmodeldev.errors import UsageError
from mlmodeldev.secrets import clean_environment, masked, warn_of_keys_left_out
from mlmodeldev.slurm.entrypoint import Job, SearchJob
from mlmodeldev.slurm.local import trial_task
from mlmodeldev.slurm.outer_job import left_out_choices, sbatch_environment
from mlmodeldev.slurm.plan import trials_at_once
from mlmodeldev.slurm.preflight import refuse_other_clusters
from mlmodeldev.slurm.query import cluster_name, run_command
from mlmodeldev.slurm.script import batch_script, script_file, tasks_file
from mlmodeldev.slurm.snapshot import take_snapshot
from mlmodeldev.slurm.submission import Submission, queued_number

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm.plan import Plan
    from mlmodeldev.slurm.trial_entries import TrialEntry
    from mlmodeldev.sweep.starter import Starter

SBATCH_SECONDS = 600.0
"""sbatch itself waits and tries again while the controller is busy or its queue is full."""


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
    _warn_of_choices(cluster)
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
    with atomic_write(submission.sweep_file) as copy:
        copy.write(sweep_state.file.read_bytes())
    start = sweep_state.starter(submission.snapshot)
    for tasks in plan.arrays:
        jobs = [_job(plan, task, submission, start) for task in tasks]
        trials = [[entry.trial.id for entry in task] for task in tasks]
        name = sweep_state.folder.name
        after = [submit(submission, cluster, name, jobs, trials, plan.throttle, after)]
    return submission


def _warn_of_choices(cluster: Cluster) -> None:
    """Say which of the user's defaults are left out, since the outer job may have set them."""
    for name in left_out_choices(cluster):
        setting = f"cluster.{name.removeprefix('SBATCH_').lower()}"
        print(
            f"warning: submitted from inside of a job: {name} is left out; {setting}=VALUE sets it",
            file=sys.stderr,
        )


def _job(
    plan: Plan, entries: Sequence[TrialEntry], submission: Submission, start: Starter | None
) -> Job | SearchJob:
    state, slots = plan.sweep_state, trials_at_once(plan.cluster)
    if state.is_search and not entries:
        file, runs_dir = submission.sweep_file, state.folder.parent
        return SearchJob(
            file, runs_dir, state.overrides, slots, state.modules, state.seed, state.count,
            str(state.file),
        )  # fmt: skip
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
        UsageError: Slurm refuses, or has taken it and does not say under which number; another
            cluster is asked for.
    """
    refuse_other_clusters(cluster)
    number = len(submission.arrays)
    with atomic_write(tasks_file(submission.folder, number)) as file:
        pickle.dump(list(jobs), file)
    script = script_file(submission.folder, number)
    write_text(
        script,
        batch_script(
            cluster, name, submission.folder, submission.snapshot, len(jobs), throttle, number,
            after,
        ),
    )  # fmt: skip
    submission.intend(trials)
    job = _run_sbatch(script, cluster, submission)
    script.rename(submission.folder / f"{job}_submission.sh")
    submission.add(job, trials)
    return job


def _run_sbatch(script: Path, cluster: Cluster, submission: Submission) -> str:
    """Hand a script to sbatch; return the number that it says, or that the queue has for it.

    Raises:
        UsageError: it refuses; or it has taken the jobs and their number is not to be had. The
            intent is kept then, so that they are not submitted a second time.
    """
    environment = clean_environment(sbatch_environment(cluster))
    command = ("sbatch", "--parsable", str(script))
    done = run_command(*command, seconds=SBATCH_SECONDS, environment=environment)
    if done.returncode:
        if not any(text in done.stderr + done.stdout for text in _MAY_BE_QUEUED):
            submission.intend(None)
        reason = refusal(done.stderr, done.stdout)
        raise UsageError(f"sbatch refuses: {reason}; doctor looks for the cause")
    if job := number_here(done.stdout, submission):
        return job
    submission.note_taken()
    if job := queued_number(submission):
        return job
    printed = masked(" ".join(done.stdout.split()), 200)
    raise UsageError(
        f"sbatch has taken {script}, but says no number: {printed!r};"
        " status and cancel find the jobs as soon as the queue shows them, submit leaves them alone"
    )


_MAY_BE_QUEUED = ("imed out", "Unable to contact", "onnection reset", "Zero Bytes")
"""Errors after which the jobs may be in the queue: an answer was lost, not the question."""


def number_here(output: str, submission: Submission | None = None) -> str:
    """Read the number of a job of this cluster in what sbatch prints; empty: there is none.

    Args:
        output: what sbatch has printed.
        submission: that the job belongs to, if to any.

    Raises:
        UsageError: a site's sbatch has put it onto another cluster, where neither status nor
            cancel would find it; it is cancelled there.
    """
    job, where = job_and_cluster(output)
    if not where:
        return job
    if submission:
        submission.note_taken()  # until its cluster is told from this one
    own = cluster_name()
    if where.lower() == own:
        return job
    ended = run_command("scancel", "-M", where, job, seconds=120).returncode == 0
    if ended and submission:
        submission.intend(None)
    then = "it was cancelled there" if ended else f"scancel -M {where} {job} ends it"
    raise UsageError(
        f"sbatch has put job {job} onto cluster {where}, and this machine's is {own}: {then};"
        f" submit from a login node of {where}"
    )


def job_and_cluster(output: str) -> tuple[str, str]:
    """Read a job's number in what sbatch prints, and the cluster, which it seldom names.

    A line of its own, ``12`` or ``12;cluster``, as ``--parsable`` makes it; else Slurm's sentence.
    Sites wrap sbatch, and print lines of their own, whose numbers are no jobs.

    >>> job_and_cluster("Welcome: see job 12 of 4\\n15786755;main")
    ('15786755', 'main')
    """
    for pattern in _ANSWERS:
        if answers := re.findall(pattern, output):
            job, cluster = answers[-1]
            return str(job), str(cluster)
    return "", ""


_ANSWERS = (
    r"(?m)^\s*([0-9]{1,18})(?:;(\S*))?\s*$",
    r"Submitted batch job ([0-9]{1,18})\b(?: on cluster (\S+))?",
)


def refusal(errors: str, output: str) -> str:
    """Return in a line why sbatch refuses: its errors, wherever a site's wrapper prints them."""
    for text in (errors, output):
        lines = re.findall(r"error: (.+)", text)
        if lines := list(dict.fromkeys(line.strip() for line in lines)):
            return "; ".join(lines)
    lines = [line.strip() for line in (errors + "\n" + output).splitlines() if line.strip()]
    return "; ".join(lines[-3:]) or "it says no reason"
