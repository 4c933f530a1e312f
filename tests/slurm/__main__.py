"""A test cluster to play with: ``python -m tests.slurm up|down`` (``make slurm``)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.slurm import machine
from tests.slurm.cluster import Cluster, Missing


def main(arguments: list[str]) -> int:
    """Bring a cluster up that stays, or end all those that stayed."""
    if arguments == ["down"]:
        for folder in _kept():
            machine.remove(folder)
            print(f"{folder}: down")
        machine.end_orphans()
        return 0
    if arguments != ["up"]:
        print("usage: python -m tests.slurm up|down", file=sys.stderr)
        return 2
    for folder in _kept():
        print(f"there is one already; in your shell:\n  . {folder}/env.sh")
        return 0
    try:
        cluster = Cluster(keep=True).start()
    except Missing as reason:
        print(f"make slurm: {reason}", file=sys.stderr)
        return 2
    print(
        f"4 nodes of 4 CPUs and 2 (pretended) GPUs are up; in your shell:\n"
        f"  . {cluster.folder}/env.sh\n"
        "  sinfo; srun -N2 --gres=gpu:1 hostname\n"
        "  python slurm/SlurmTrain.py --yes cluster=debug\n"
        "  make slurm-down           (when you have done)"
    )
    return 0


def _kept() -> list[Path]:
    folders = Path(tempfile.gettempdir()).glob(f"{machine.PREFIX}*/")
    return [f for f in folders if (f / "env.sh").exists() and not (f / "owner.json").exists()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
