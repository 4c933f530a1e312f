"""Cores: how many there are, and how OpenMP's threads wait for each other: asleep, so that a
shared core goes to who needs it.

Example::

    share_cores()       # before torch is imported
"""

from __future__ import annotations

import os


def share_cores() -> None:
    """Let waiting threads sleep, unless the environment says otherwise; before torch is loaded.

    By default they spin. Where two trials share two cores, or anything else runs beside one, each
    of a step's hundreds of parallel regions then waits for a thread that a spinning one keeps
    off its core: steps of 35 ms were seen to take 600 ms to 9 s. Asleep, 37 ms. What waking up
    costs on an idle machine is a few percent for small models, and nothing for large ones.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def cores() -> int:
    """Return the CPUs that this process may use: of its Slurm task, else of its affinity."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK", "0")) or len(os.sched_getaffinity(0))
