"""The ranks that ``srun`` started: who they are, and how they find each other.

No port is fixed or guessed: the first rank opens one that is free and writes it into the runs
folder, which all nodes share; the file's name carries job, step and restart.

Example, on each of 2 × 2 tasks of a step::

    place = srun_rank()                         # SrunRank(3, size=4, local_rank=1, local_size=2)
    store = open_store(place, Path("runs"))
    dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.size)
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.atomic import write_json
from mlmodeldev.errors import UsageError
from mlmodeldev.machine import number_in
from mlmodeldev.training.meeting import Wait, host_name, serve, try_to_connect

if TYPE_CHECKING:
    from torch.distributed import TCPStore

_LEFT = "mlmodeldev/left"
_TOKEN = "mlmodeldev/token"


@dataclass(frozen=True)
class SrunRank:
    """A task's place in its step."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def srun_rank(variables: Mapping[str, str] = os.environ) -> SrunRank | None:
    """Return this task's place, or None outside of a step of several tasks.

    In the shell that ``srun -n4 --pty bash`` opens, too: the other tasks of that step are shells
    of their own, and start nothing.

    Raises:
        UsageError: the nodes have different numbers of tasks.
    """
    size = number_in(variables, "SLURM_STEP_NUM_TASKS", 1)
    if size <= 1 or not variables.get("SLURM_PROCID"):
        return None
    if "SLURM_PTY_PORT" in variables and _is_from_a_shell():
        print(f"srun --pty: training alone, not as one of {size} tasks", file=sys.stderr)
        return None
    counts = _tasks_per_node(variables.get("SLURM_STEP_TASKS_PER_NODE", str(size)))
    if len(set(counts)) > 1:
        raise UsageError(
            f"srun started {'+'.join(map(str, counts))} tasks on {len(counts)} nodes: each node"
            " must have as many; give --ntasks-per-node"
        )
    rank = number_in(variables, "SLURM_PROCID", 0)
    local_rank = number_in(variables, "SLURM_LOCALID", rank % counts[0])
    if rank >= size or local_rank >= counts[0]:
        raise UsageError(
            f"SLURM_PROCID={rank} and SLURM_LOCALID={local_rank} don't fit {size} tasks,"
            f" {counts[0]} on a node; were SLURM_STEP_NUM_TASKS or SLURM_STEP_TASKS_PER_NODE set by"
            " hand?"
        )
    return SrunRank(rank, size, local_rank, counts[0])


def _is_from_a_shell() -> bool:
    """Return whether somebody's shell has started this, not srun: shells give each job a group."""
    return os.getpgrp() != os.getsid(0)


def _tasks_per_node(text: str) -> list[int]:
    """Read Slurm's ``2(x3),1``: two tasks on each of three nodes, one on a fourth."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9]\d{0,6})(?:\(x(\d{1,6})\))?", part.strip(), re.ASCII)
        counts += [int(match[1])] * int(match[2] or 1) if match else []
    return counts or [1]


def open_store(place: SrunRank, runs_dir: Path) -> TCPStore:
    """Open the store that the ranks form their group with, or find the first rank's.

    Raises:
        UsageError: the first rank does not show up.
        TrialInterrupted: a signal came meanwhile.
    """
    file = runs_dir / ".meeting" / _step_name()
    if place.rank == 0:
        is_one_node = place.size == place.local_size
        token, host = os.urandom(16).hex(), "127.0.0.1" if is_one_node else host_name()
        store = serve("127.0.0.1", 0, all_interfaces=not is_one_node)
        store.set(_TOKEN, token)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"host": host, "port": store.port, "token": token})
    else:
        host, store = _find_store(file)
    os.environ.update(MASTER_ADDR=host, MASTER_PORT=str(store.port))
    return store


def _step_name() -> str:
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return "-".join(os.environ.get(name, "0") for name in names) + ".json"


def _find_store(file: Path) -> tuple[str, TCPStore]:
    """Return the first rank's host and store.

    A file that a killed step left, whose numbers have come again, is not trusted: nobody listens
    there, or a store that does not know the file's token. The first rank will write another.
    """
    hint = "is the runs folder on a file system that all nodes share?"
    wait = Wait(f"the first of the step's tasks to write {file}", hint=hint)
    while True:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            list(file.parent.iterdir())  # a network file system forgets that it was missing
            address = json.loads(file.read_text())
            host, token = str(address["host"]), str(address["token"])
            store = try_to_connect(host, int(address["port"]))
            if store and store.check([_TOKEN]) and store.get(_TOKEN) == token.encode():
                return host, store
        wait.pause()


def leave_store(store: TCPStore, place: SrunRank, runs_dir: Path) -> None:
    """Let the first rank end first.

    ``srun --kill-on-bad-exit`` kills the others as soon as one ends with 75, and the first one
    still has to write the trial's record.
    """
    with contextlib.suppress(Exception):  # the store is gone with the first rank: it has ended
        if place.rank == 0:
            store.set(_LEFT, "1")
            (runs_dir / ".meeting" / _step_name()).unlink(missing_ok=True)
        else:
            store.wait([_LEFT], timedelta(seconds=60))
