"""Questions to Slurm: is it here, what may be asked of it, what is in the queue.

Every answer is read from Slurm's commands; where accounting is missing, what only accounting
knows is left out.

Example::

    limits = ask_limits()
    limits.partitions["gpu"].minutes       # the partition's time limit
    queue(["1201", "1202"])                # {"1201_0": Queued(state="RUNNING", ...), ...}
"""

from __future__ import annotations

import shutil
import subprocess

_NO_CONFIGURATION = ("configuration source", "slurm.conf", "config file")


def slurm_is_here() -> bool:
    """Whether this machine belongs to a Slurm cluster.

    Slurm's commands without a configuration (packages installed, no cluster) do not count; a
    cluster whose controller is silent for a moment does.
    """
    if not shutil.which("sbatch"):
        return False
    done = _try("scontrol", "ping")
    return done.returncode == 0 or not any(text in done.stderr for text in _NO_CONFIGURATION)


def _try(*command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
