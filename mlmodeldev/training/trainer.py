"""Lightning's Trainer, made from the `training` group.

Example::

    trainer = make_trainer(settings, world, loggers, callbacks, folder)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from mlmodeldev.errors import UsageError
from mlmodeldev.machine import number_in
from mlmodeldev.training.checkpoint_io import AtomicCheckpointIO
from mlmodeldev.training.ranks import World

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from mlmodeldev.settings.schema import Settings, Training


def make_trainer(
    settings: Settings,
    world: World,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
    folder: Path,
) -> Trainer:
    """Return a Trainer that does as it was told, or refuses.

    Raises:
        UsageError: the hardware lacks the accelerator or the precision that was asked for, or
            Lightning refuses an argument.
    """
    training = settings.training
    if training.deterministic and training.trainer.get("benchmark"):
        raise UsageError(
            "training.trainer.benchmark=True: chooses operations by their speed of the moment;"
            " it needs training.deterministic=false"
        )
    accelerator = choose_accelerator(training.accelerator)
    check_precision(training.precision, accelerator)
    # Determinism would fill all new memory with NaN, which only shows defects of torch itself.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    arguments: dict[str, Any] = {
        "accelerator": accelerator,
        # where each process sees its own GPUs alone, Lightning is to look for no more
        "devices": 1 if world.has_own_gpus else world.local_size,
        "num_nodes": world.size if world.has_own_gpus else world.nodes,
        "strategy": _strategy(training, world),
        "precision": training.precision,
        "max_epochs": training.max_epochs,
        "max_steps": training.max_steps,
        "gradient_clip_val": training.gradient_clip_val,
        "accumulate_grad_batches": training.accumulate_grad_batches,
        "deterministic": training.deterministic,
        "limit_train_batches": training.limit_train_batches,
        "limit_val_batches": training.limit_val_batches,
        "overfit_batches": training.overfit_batches,
        "check_val_every_n_epoch": training.check_val_every_n_epoch,
        "log_every_n_steps": training.log_every_n_steps,
        "detect_anomaly": training.detect_anomaly,
        "num_sanity_val_steps": 0,
        "profiler": _profiler(training, folder),
        "logger": list(loggers),
        "callbacks": list(callbacks),
        "plugins": [AtomicCheckpointIO(), WorldEnvironment(world)],
        "default_root_dir": str(folder),
        "use_distributed_sampler": False,  # ExactLoader shares the batches
        "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
        "enable_model_summary": False,
        "enable_checkpointing": True,
    }
    try:
        trainer = Trainer(**{**arguments, **training.trainer})
    except (MisconfigurationException, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        if training.trainer:
            raise UsageError(f"training.trainer={training.trainer}: {text}") from None
        if isinstance(error, MisconfigurationException):
            raise UsageError(f"training: {text}") from None
        raise
    # Where max_steps is set Lightning takes each start for one in the middle of an epoch: what was
    # at its end would end it once more, and read on in the order of the next but one.
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    return trainer


def choose_accelerator(accelerator: str) -> str:
    """Return cpu, gpu or mps.

    Raises:
        UsageError: it is asked for and not there.
    """
    have = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return next((name for name, there in have.items() if there), "cpu")
    if accelerator != "cpu" and not have[accelerator]:
        raise UsageError(
            f"training.accelerator={accelerator}: this machine has none (or torch was built without"
            " it); auto takes what is there"
        )
    return accelerator


def check_precision(precision: str, accelerator: str) -> None:
    """Refuse what Lightning or torch would silently replace by something else.

    Raises:
        UsageError: the hardware can't compute in this precision.
    """
    reason = ""
    if precision.startswith("16") and accelerator == "cpu":
        reason = "half precision needs a GPU"
    elif precision.startswith("bf16") and accelerator == "gpu":
        reason = (
            ""
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else "this GPU lacks bfloat16"
        )
    elif precision == "64-true" and accelerator == "mps":
        reason = "Apple's GPUs have no double precision"
    if reason:
        raise UsageError(f"training.precision={precision}: {reason}; 32-true runs everywhere")


def _strategy(training: Training, world: World) -> Any:
    if training.strategy == "fsdp" and not world.has_own_gpus:
        return "fsdp"
    if world.size == 1 and training.strategy == "auto":
        return "auto"
    from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy

    if training.strategy == "fsdp":
        return _with_own_gpu(FSDPStrategy)()
    # DDP lays its gradient buckets out anew after the first step, so a resumed trial would add over
    # ranks in another order than an undisturbed one (two ranks can't differ). Looking for unused
    # parameters keeps the first layout.
    keep_layout = training.deterministic and world.size > 2
    wanted = {"ddp_find_unused_parameters_true": True, "ddp_find_unused_parameters_false": False}
    find = wanted.get(training.strategy, keep_layout)
    kind = _with_own_gpu(DDPStrategy) if world.has_own_gpus else DDPStrategy
    return kind(gradient_as_bucket_view=True, find_unused_parameters=find)


def _with_own_gpu(kind: type[Any]) -> type[Any]:
    """Return a strategy whose process trains on the one GPU that it sees, whatever its number."""
    first = property(lambda strategy: strategy.parallel_devices[0])
    return type(kind.__name__, (kind,), {"root_device": first})


def _profiler(training: Training, folder: Path) -> Any:
    if training.profiler is None:
        return None
    from pytorch_lightning import profilers

    kind: Any = {
        "simple": profilers.SimpleProfiler,
        "advanced": profilers.AdvancedProfiler,
        "pytorch": profilers.PyTorchProfiler,
    }[training.profiler]
    return kind(dirpath=folder, filename=training.profiler)


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
        return number_in(os.environ, "MASTER_PORT", 0)

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
