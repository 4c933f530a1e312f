"""Whether the jobs will see the runs folder: it must lie where all nodes look.

Example::

    refuse_memory(Path("/dev/shm/runs"))                # UsageError
    doubt(Path("/tmp/runs"), limits.nodes)              # a sentence, or ""
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError

if TYPE_CHECKING:
    from mlmodeldev.slurm.query import Node

MOUNTS = Path("/proc/self/mounts")
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_ON_A_DISK = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "overlay"})


def refuse_memory(runs_dir: Path) -> None:
    """Refuse a folder that no other machine can see.

    Raises:
        UsageError: it lies in memory.
    """
    kind = file_system(runs_dir)
    if kind in _IN_MEMORY:
        raise UsageError(
            f"artefacts.runs_dir={runs_dir}: lies in the memory of this machine ({kind}), where no"
            " job sees it; use a file system that all nodes share"
        )


def doubt(runs_dir: Path, nodes: Iterable[Node]) -> str:
    """Say that a folder seems to lie on this machine's own disk, where jobs run on others.

    It may be right nevertheless: the machine may be the one whose disk the nodes share.
    """
    kind = file_system(runs_dir)
    others = sorted(node.name for node in nodes if not _is_here(node))
    if kind not in _ON_A_DISK or not others:
        return ""
    return (
        f"artefacts.runs_dir={runs_dir}: lies on a disk of this machine ({kind}); jobs on"
        f" {others[0]}{' and others' if len(others) > 1 else ''} may not see it: use a file system"
        " that all nodes share"
    )


def _is_here(node: Node) -> bool:
    name = socket.gethostname()
    mine = {name, name.partition(".")[0], "localhost", "::1"}
    return node.address in mine or node.address.startswith("127.")


def file_system(path: Path) -> str:
    """Return the type of the file system that a path (or its nearest parent) lies on."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    path = path.resolve()
    mounts = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()]
    above = [(m, kind) for m, kind in mounts if path.is_relative_to(m)]
    return max(above, key=lambda mount: len(mount[0]))[1] if above else ""
