"""All checks, in the order in which they are made; a module for each subject.

To add one, write a function from a `Scope` to lines, a row here and one in docs/doctor.md.
"""

from __future__ import annotations

from mlmodeldev.doctor.checks import (
    cluster,
    disk,
    locks,
    machine,
    modes,
    node,
    packages,
    project,
    tracking,
)
from mlmodeldev.doctor.line import Check

CHECKS = (
    Check("python", packages.python, quick=True, on_node=True),
    Check("packages", packages.packages, quick=True, on_node=True),
    Check("lock", packages.lock),
    Check("torch", machine.torch, on_node=True, seconds=machine.TORCH_SECONDS + 10),
    Check("runs-folder", disk.runs_folder, quick=True, on_node=True),
    Check("disk", disk.room, quick=True, on_node=True),
    Check("quota", disk.quota, seconds=30),
    Check("purge", disk.purge, seconds=30),
    Check("locks", locks.locks, quick=True, on_node=True),
    Check("clock", locks.clock, quick=True, on_node=True),
    Check("modes", modes.modes, quick=True),
    Check("slurm", cluster.reachable, seconds=130),
    Check("settings", cluster.contradictions, quick=True),
    Check("cluster", cluster.allowed, seconds=130),
    Check("jobs-python", cluster.jobs_python, quick=True),
    Check("sbatch", cluster.test_only, seconds=130),
    Check("wandb-key", tracking.key, quick=True),
    Check("wandb-jobs", tracking.key_of_jobs, quick=True, on_node=True, in_submit="warning"),
    Check("wandb-server", tracking.server, on_node=True, seconds=30),
    Check("wandb-clock", tracking.server_clock, on_node=True, seconds=15),
    Check("trackers", tracking.packages, quick=True, on_node=True),
    Check("data", project.data, on_node=True, seconds=120),
    Check("sweep", project.sweep, quick=True, in_submit="all"),
    Check("snapshot", project.snapshot, quick=True, in_submit="all"),
    Check("submit", cluster.submission, seconds=130),
    Check("scontrol", node.scontrol, on_node=True),
    Check("srun", node.srun, on_node=True, seconds=120),
    Check("signals", node.signals, on_node=True, seconds=120),
)
