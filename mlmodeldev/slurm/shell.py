"""Slurm's own commands, run with a time limit.

Example::

    answer("squeue", "-h")               # UsageError where Slurm does not answer
    attempt("scontrol", "ping").returncode
"""

from __future__ import annotations

import subprocess

from mlmodeldev.errors import UsageError


def answer(*command: str) -> str:
    """Return what a command prints.

    Raises:
        UsageError: it failed: nothing is known then, and no answer is not an empty one.
    """
    done = attempt(*command)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UsageError(f"{' '.join(command)}: Slurm does not answer ({said[-1] if said else ''})")
    return done.stdout


def attempt(*command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command; one that is not there or hangs has failed, with status 127."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
