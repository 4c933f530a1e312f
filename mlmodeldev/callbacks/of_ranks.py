"""State that each process of a trial has of its own, in the one checkpoint that they share.

Example::

    state = {"sums": gather(trainer, sums)}        # on every rank, at the same place
    sums = own_part(trainer, state["sums"])
"""

from __future__ import annotations

import logging
from typing import Any

import torch.distributed as dist
from pytorch_lightning import Trainer

log = logging.getLogger(__name__)

_MARK = "of_ranks"


def gather(trainer: Trainer | None, value: Any) -> Any:
    """Return the values of all ranks, for `own_part`; of one process alone, its value."""
    if trainer is None or trainer.world_size == 1:
        return value
    values: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(values, value)
    return [_MARK, values]


def own_part(trainer: Trainer, gathered: Any) -> Any:
    """Return this rank's part of what `gather` has returned; None for a rank that is new."""
    is_whole = not (isinstance(gathered, list) and len(gathered) == 2 and gathered[0] == _MARK)
    if is_whole:
        return gathered if trainer.global_rank == 0 or trainer.world_size == 1 else None
    values = gathered[1]
    if trainer.world_size < len(values) and trainer.is_global_zero:
        log.warning(
            "%d processes go on where %d were: of this epoch's metrics the part of the others is"
            " lost",
            trainer.world_size,
            len(values),
        )
    return values[trainer.global_rank] if trainer.global_rank < len(values) else None
