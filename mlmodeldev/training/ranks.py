"""The processes that train one trial together, whoever started them.

``torchrun`` and ``accelerate launch`` start them and set RANK, WORLD_SIZE and so on; ``srun`` has
variables of its own (`mlmodeldev.training.srun`). Where nobody did and several devices are asked
for, this file starts the others, with the same settings. From then on there is one way: all
processes join one group before any of them touches the trial's folder, the first decides, and its
decision or its error reaches all.

Example::

    world = join(settings)                     # error unless as many came as were asked for
    plan = world.on_rank_zero(lambda: open_folder())
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlmodeldev.errors import UsageError
from mlmodeldev.fetch import lock
from mlmodeldev.machine import cores, number_in, shorten_socket_paths
from mlmodeldev.project import project_root
from mlmodeldev.settings.command_line import SETTINGS_VARIABLE
from mlmodeldev.training import srun
from mlmodeldev.training.children import die_with, end, wait_for
from mlmodeldev.training.launched import Launched, forget_left_over, is_launched
from mlmodeldev.training.meeting import Wait, host_name, meet, serve, wait_for_key
from mlmodeldev.training.places import choose_gpu, local_place, visible_ids
from mlmodeldev.trial import signals

if TYPE_CHECKING:
    from torch.distributed import Store

    from mlmodeldev.settings.schema import Settings


T = TypeVar("T")

DECISION_SECONDS = 1800.0
"""How long processes wait for what the first decides."""
_GRACE_SECONDS = 15.0
"""How long after a signal: it has come to the first one, too."""
_PARENT = "MLMODELDEV_PARENT"


@dataclass
class World:
    """This process's place among all that train the trial."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _waits: int = field(default=0, repr=False)
    shutdown: Callable[[], None] | None = None
    """Called when the group is left."""
    store: Store | None = field(default=None, repr=False)
    """Where the processes leave notes for each other."""
    has_own_gpus: bool = False
    """Whether each process sees its own GPUs alone, as srun's ``--gpus-per-task`` has it."""

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is the one that writes files and talks to trackers."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.size // self.local_size

    def on_rank_zero(self, decide: Callable[[], T], patience: float | None = None) -> T:
        """Run ``decide`` on the first process; return its result, or raise its error, on all.

        Args:
            patience: seconds that the others wait for it; None: `DECISION_SECONDS`. A dead first
                process is noticed at once.

        Raises:
            TrialInterrupted: a signal came, and the first process did not say that it ends.
        """
        if self.size == 1:
            return decide()
        import torch.distributed as dist

        box: list[Any] = [None, None]
        if self.is_rank_zero:
            try:
                box[0] = decide()
            except Exception as error:
                box[1] = error
        self._wait_for_rank_zero(DECISION_SECONDS if patience is None else patience)
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        decided: T = box[0]
        return decided

    def _wait_for_rank_zero(self, seconds: float) -> None:
        if self.store is None:
            return
        self._waits += 1
        key = f"mlmodeldev/decided/{self._waits}"
        if self.is_rank_zero:
            self.store.set(key, "yes")
            return
        what = "the first process, which prepares something for all"
        wait_for_key(self.store, key, Wait(what, seconds, grace=_GRACE_SECONDS))

    def leave(self) -> None:
        """End the group and see the processes out that this one started.

        Without it a finished process may abort at exit ("terminate called without an active
        exception"), which turns a good trial into a failed job.
        """
        if self.size > 1:  # one process alone has no group, nor the time to load torch for it
            import torch.distributed as dist

            if dist.is_available() and dist.is_initialized():
                dist.destroy_process_group()
        if self.shutdown:
            self.shutdown()
        wait_for(self.children)


def join(settings: Settings) -> World:
    """Find or start the other processes and form a group with them.

    Raises:
        UsageError: as many devices were asked for as there are not, or a strategy that can't be.
        TrialInterrupted: a signal ended the wait for the others.
    """
    with signals.answered():
        return _join(settings)


def _join(settings: Settings) -> World:
    forget_left_over()
    shorten_socket_paths()
    if signals.raise_if_requested not in lock.on_wait:
        lock.on_wait.append(signals.raise_if_requested)
    if settings.training.strategy == "fsdp":
        _check_sharding(settings)
    devices, nodes = settings.training.devices, settings.training.num_nodes
    if is_launched():
        world = _join_launched(settings, devices, nodes)
    elif place := srun.srun_rank():
        world = World(place.rank, place.size, place.local_rank, place.local_size)
        _check_size(world, devices, nodes)
        _check_tasks(settings, place.size)
        _join_step(settings, world, place)
    elif nodes not in ("auto", 1):
        raise UsageError(
            f"training.num_nodes={nodes}: a process on each node must be started for it, by"
            " torchrun or srun"
        )
    elif devices in ("auto", 1):
        _check_tasks(settings, 1)
        return World()
    else:
        world = _start_others(settings, int(devices))
        with contextlib.ExitStack() as undo:
            undo.callback(world.shutdown or (lambda: None))
            _form_group(settings, world)
            undo.pop_all()
    return world


def _join_step(settings: Settings, world: World, place: srun.SrunRank) -> None:
    runs = Path(settings.artefacts.runs_dir).expanduser().absolute()
    os.environ["LOCAL_RANK"] = str(place.local_rank)
    store = srun.open_store(place, runs)
    world.store = store
    _form_group(settings, world)
    world.shutdown = lambda: srun.leave_store(store, place, runs)


def _check_tasks(settings: Settings, started: int) -> None:
    """Refuse a job step with other ranks than the cluster's settings ask for."""
    cluster = settings.cluster
    in_step = "SLURM_STEP_NUM_TASKS" in os.environ and cluster.launcher == "slurm"
    if in_step and cluster.tasks != started:
        raise UsageError(
            f"cluster.nodes={cluster.nodes} with cluster.tasks_per_node={cluster.tasks_per_node}"
            f" makes {cluster.tasks} processes, but srun started {started}"
        )


def _join_launched(settings: Settings, devices: int | str, nodes: int | str) -> World:
    """Join the processes that a launcher, or somebody by hand, has given numbers."""
    launched = Launched.of(os.environ)
    if parent := os.environ.get(_PARENT):
        die_with(int(parent))
    local_rank, local_size = launched.local_rank or 0, launched.local_size or launched.size
    world = World(launched.rank, launched.size, local_rank, local_size)
    is_placed = launched.local_size is not None
    if is_placed or world.size == 1:
        _check_size(world, devices, nodes)
    if world.size > 1:
        world.store = launched.open_store()
        _form_group(settings, world, is_placed)
        _check_size(world, devices, nodes)
    return world


def _check_size(world: World, devices: int | str, nodes: int | str) -> None:
    wanted = (world.local_size if devices == "auto" else int(devices)) * (
        world.nodes if nodes == "auto" else int(nodes)
    )
    if wanted != world.size:
        raise UsageError(
            f"training.devices={devices} on training.num_nodes={nodes} makes {wanted} processes,"
            f" but the launcher started {world.size}"
        )


def _start_others(settings: Settings, count: int) -> World:
    _check_devices(settings, count)
    store = serve("127.0.0.1", 0)
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // count))),
    }
    trainer = project_root() / "trainer.py"
    world = World(0, count, 0, count, store=store)
    for rank in range(1, count):
        own = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            _PARENT: str(os.getpid()),
            SETTINGS_VARIABLE: settings.model_dump_json(),
        }
        world.children.append(
            subprocess.Popen(
                [sys.executable, str(trainer)], env={**os.environ, **environment, **own}
            )
        )
    atexit.register(end, world.children)
    environment |= {"RANK": "0", "LOCAL_RANK": "0"}
    former = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    world.shutdown = lambda: _put_back(former)
    return world


def _put_back(variables: Mapping[str, str | None]) -> None:
    """Undo what was set: a process's next training starts processes of its own."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _check_devices(settings: Settings, count: int) -> None:
    import torch

    if settings.training.accelerator in ("auto", "gpu") and torch.cuda.is_available():
        have = torch.cuda.device_count()
        if count > have:
            raise UsageError(f"training.devices={count}: this machine has {have} GPU(s)")


def _check_sharding(settings: Settings) -> None:
    import torch

    training = settings.training
    if training.accelerator not in ("auto", "gpu") or not torch.cuda.is_available():
        raise UsageError("training.strategy=fsdp: needs GPUs; ddp runs everywhere")
    if training.gradient_clip_val is not None:  # Lightning raises at the first step
        raise UsageError(
            f"training.gradient_clip_val={training.gradient_clip_val}: can't be with"
            " training.strategy=fsdp; null clips nothing, ddp clips"
        )


def _form_group(settings: Settings, world: World, is_placed: bool = True) -> None:
    """Wait for the others, choose this process's GPU, and form torch's group.

    Args:
        world: its store is there.
        is_placed: whether the processes know their places on their machines; else they find them.
    """
    import torch
    import torch.distributed as dist

    assert world.store is not None
    gpu = settings.training.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    note = {"host": host_name(), "gpus": visible_ids() if gpu else []}
    notes = meet(world.store, world.rank, world.size, note, lambda: _check_children(world))
    if not is_placed:
        world.local_rank, world.local_size = local_place(notes, world.rank)
        os.environ["LOCAL_RANK"] = str(world.local_rank)
    if gpu:
        index, world.has_own_gpus = choose_gpu(notes, world.rank, world.local_rank)
        torch.cuda.set_device(index)
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(max(1, number_in(os.environ, "OMP_NUM_THREADS", cores())))
    store = dist.PrefixStore("mlmodeldev/group", world.store)
    dist.init_process_group(
        "nccl" if gpu else "gloo", store=store, rank=world.rank, world_size=world.size
    )


def _check_children(world: World) -> None:
    """Notice that one of the processes started here has ended before it came."""
    for rank, child in enumerate(world.children, 1):
        if child.poll() is not None:
            raise UsageError(f"the process of rank {rank} has ended with {child.returncode}")
