"""Tell Lightning which processes there are, so that it looks for no launcher of its own.

Lightning would find Slurm, take its signals and requeue the job by itself; a trial has one owner
of signals, and it is not Lightning.

Example::

    Trainer(plugins=[WorldEnvironment(world)], ...)
"""

from __future__ import annotations

import os

from pytorch_lightning.plugins.environments import ClusterEnvironment

from mlmodeldev.training.ranks import World


class WorldEnvironment(ClusterEnvironment):
    """Tell Lightning of a `World`; it then looks for no launcher of its own (Slurm's least)."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning is not to start any."""
        return True

    @property
    def main_address(self) -> str:
        """Address of the first process."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Port of the first process."""
        return int(os.environ.get("MASTER_PORT", "0"))

    @staticmethod
    def detect() -> bool:
        """Never by itself: it is handed over."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self._world.size

    def set_world_size(self, size: int) -> None:
        """Lightning derives the same number from devices and nodes."""

    def global_rank(self) -> int:
        """Number of this process."""
        return self._world.rank

    def set_global_rank(self, rank: int) -> None:
        """Lightning derives the same number from node and local rank."""

    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return self._world.local_rank

    def node_rank(self) -> int:
        """Number of this machine."""
        return self._world.rank // self._world.local_size
