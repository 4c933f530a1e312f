"""Which processes share a machine, and which GPU each takes.

Launchers differ: torchrun lets all processes of a node see all its GPUs, srun's ``--gpus-per-task``
shows each its own alone. What is seen is compared, not what was asked for.

Example::

    notes = [{"host": "n1", "gpus": ["a", "b"]}, {"host": "n1", "gpus": ["a", "b"]}]
    choose_gpu(notes, rank=1, local_rank=1)      # (1, False): the second of those it sees
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlmodeldev.errors import UsageError

Notes = Sequence[Mapping[str, Any]]
"""What each process says of itself, by rank: ``host`` and the ids of the ``gpus`` that it sees."""


def visible_ids() -> list[str]:
    """Return what names each GPU that this process sees, the same in every process."""
    import torch

    count = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]


def local_place(notes: Notes, rank: int) -> tuple[int, int]:
    """Return a process's number among those on its machine, and how many these are.

    Raises:
        UsageError: the machines have different numbers of processes.
    """
    mine = _neighbours(notes, rank)
    hosts = [str(note["host"]) for note in notes]
    counts = {host: hosts.count(host) for host in hosts}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} on {host}" for host, count in counts.items())
        raise UsageError(f"WORLD_SIZE={len(notes)}: each machine must have as many ({listed})")
    return mine.index(rank), len(mine)


def choose_gpu(notes: Notes, rank: int, local_rank: int) -> tuple[int, bool]:
    """Return which of its GPUs a process takes, and whether it sees its own alone.

    Raises:
        UsageError: two processes would share one.
    """
    neighbours = _neighbours(notes, rank)
    mine = set(notes[rank]["gpus"])
    others = {gpu for number in neighbours if number != rank for gpu in notes[number]["gpus"]}
    if mine and not mine & others and len(neighbours) > 1:
        return 0, True
    if len(mine) < len(neighbours):
        raise UsageError(
            f"{len(neighbours)} processes on {notes[rank]['host']} share {len(mine)} GPU(s): each"
            " needs one of its own (srun --gpus-per-task, CUDA_VISIBLE_DEVICES)"
        )
    return local_rank, False


def _neighbours(notes: Notes, rank: int) -> list[int]:
    host = notes[rank]["host"]
    return [number for number, note in enumerate(notes) if note["host"] == host]
