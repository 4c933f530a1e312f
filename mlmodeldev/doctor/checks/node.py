"""From inside of a job: whether scontrol and srun work there, and signals reach a trial.

A trial is requeued by scontrol, runs under srun, and is warned of its time limit by SIGUSR1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mlmodeldev.doctor.line import Line, Scope, fail, ok
from mlmodeldev.secrets import masked
from mlmodeldev.slurm.query import run_command, show_job

_SECONDS = 60.0
_LISTEN = """
import signal, sys, time
from pathlib import Path
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
Path(sys.argv[1]).touch()
end = time.monotonic() + 60
while not got and time.monotonic() < end:
    time.sleep(0.1)
sys.exit(0 if got else 3)
"""
_IN_CONTAINER = "jobs run in a container: the batch shell outside of it does this"


def scontrol(scope: Scope) -> Iterator[Line]:
    """Ask for this job: who can't be asked for can't be requeued."""
    job = os.environ.get("SLURM_JOB_ID")
    if not scope.in_job or job is None:
        return
    if _is_in_container(scope):
        yield ok(f"{_IN_CONTAINER}")
        return
    fields = show_job(job, tries=2)
    if fields:
        yield ok(f"scontrol works here: job {job} is {fields['JobState']}")
    else:
        what = f"scontrol does not show job {job}: a trial could not requeue itself"
        setup = "cluster.setup=['module load slurm']"
        yield fail(what, f'python slurm/SlurmTrain.py doctor --job "{setup}"')


def srun(scope: Scope) -> Iterator[Line]:
    """Start a step, as each trial is one."""
    if not scope.in_job or "SLURM_JOB_ID" not in os.environ:
        return
    if _is_in_container(scope):
        yield ok(f"{_IN_CONTAINER}")
        return
    words = _step(sys.executable, "-c", "print('here')")
    done = run_command(*words, seconds=_SECONDS, environment=os.environ)
    if done.returncode == 0 and "here" in done.stdout:
        yield ok("srun starts a step here")
    else:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        yield fail(
            f"srun can't start a step: {masked(why, 200)}", "srun --version; scontrol show config"
        )


def signals(scope: Scope) -> Iterator[Line]:
    """Send this job's steps SIGUSR1, as Slurm does before a time limit, and see that one got it."""
    job = os.environ.get("SLURM_JOB_ID")
    if not scope.in_job or job is None or _is_in_container(scope):
        return
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        ready = Path(folder, "ready")
        words = _step(sys.executable, "-c", _LISTEN, str(ready))
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as step:
            end = time.monotonic() + _SECONDS
            while not ready.exists() and step.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            sent = run_command("scancel", "--signal=USR1", job)
            try:
                status = step.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                step.kill()
                status = -1
    if status == 0:
        yield ok("SIGUSR1 reaches a step, so a trial is warned of its time limit")
    else:
        why = f" ({sent.stderr.strip()})" if sent.returncode else ""
        what = f"SIGUSR1 does not reach a step{why}: no trial saves before its limit"
        yield fail(what, f"scancel --signal=USR1 {job}; scontrol show config | grep -i proctrack")


def _step(*command: str) -> list[str]:
    return ["srun", "--ntasks=1", "--nodes=1", "--export=ALL", *command]


def _is_in_container(scope: Scope) -> bool:
    from mlmodeldev.slurm.script import python_words

    return len(python_words(scope.settings.cluster)) > 1
