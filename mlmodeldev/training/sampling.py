"""When an attempt's use of the machine is sampled: from its claim to its end.

Example::

    sampler = begin_sampling(folder, world)         # None on all processes but the first
    watch_training(sampler, trainer, settings)
    end_sampling(sampler)
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from mlmodeldev.trial.usage import UsageSampler

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.training.ranks import World
    from mlmodeldev.trial.folder import TrialFolder

log = logging.getLogger(__name__)


def begin_sampling(folder: TrialFolder, world: World) -> UsageSampler | None:
    """Sample in the first process of a trial that it has claimed; its folder writes it down."""
    if not (world.is_rank_zero and folder.attempt):
        return None
    try:
        launched = 1 if world.children else world.local_size  # children are found by themselves
        sampler = UsageSampler(folder.read().get("usage"), launched)
        sampler.start()
    except Exception as error:  # no /proc, no threads left: no reason not to train
        log.warning("what the trial uses is not measured: %s", error)
        return None
    folder.measure = lambda last: {"usage": sampler.entry(last)}
    return sampler


def watch_training(sampler: UsageSampler | None, trainer: Trainer, settings: Settings) -> None:
    """Let the GPU be sampled that this process trains on, if it does."""
    if sampler is None:
        return
    try:
        _watch_gpu(sampler, trainer, settings)
    except Exception as error:  # such as a strategy of one's own without a device
        log.debug("the GPU is not sampled: %s", error)


def _watch_gpu(sampler: UsageSampler, trainer: Trainer, settings: Settings) -> None:
    from mlmodeldev.callbacks.throughput import Throughput
    from mlmodeldev.trial.gpu_use import GpuUse
    from mlmodeldev.trial.idle_gpu import IdleGpu

    device = trainer.strategy.root_device
    if device.type != "cuda":
        return
    measured = [c for c in trainer.callbacks if isinstance(c, Throughput)]  # type: ignore[attr-defined]
    idle = IdleGpu(
        lambda: measured[0].data_wait_share if measured else None,
        lambda: getattr(trainer.train_dataloader, "num_workers", None),
        settings.cluster.trials_per_gpu,
    )
    sampler.watch(GpuUse(device.index or 0), idle)


def end_sampling(sampler: UsageSampler | None) -> None:
    """Sample no more."""
    if sampler is not None:
        with contextlib.suppress(Exception):
            sampler.stop()
