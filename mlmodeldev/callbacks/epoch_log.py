"""One entry for each epoch in ``log.json``: the loss, the rate, and all that the module logs.

Example of an entry::

    {"epoch": 3, "step": 80, "lr": 0.0007, "train/loss": 1.92, "val/loss": 0.31, ...}
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from mlmodeldev.atomic import write_json
from mlmodeldev.callbacks.figures import loss_of, rate_of
from mlmodeldev.callbacks.of_ranks import gather, own_part

log = logging.getLogger(__name__)

_MOST_LOSSES = 256
"""Losses kept on the device until they are added up: to look at each would make it wait."""


class EpochLog(Checkpoint):
    """Write ``log.json``; the training loss is the mean over the epoch's finite batches.

    The running mean is part of the checkpoint, so an epoch that was interrupted in its middle
    reports what an undisturbed one does. It is a `Checkpoint` to Lightning so that it comes
    after the callbacks that log in ``on_train_epoch_end``.

    Args:
        file: where to write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sums: torch.Tensor | None = None  # of the losses; of how many they are; float64
        self._losses: list[torch.Tensor] = []
        self._loaded: Any = None
        self._trainer: Trainer | None = None
        self._validated = False
        self._of_validation: set[str] = set()
        self._before: set[str] = set()

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "EpochLog"

    def state_dict(self) -> dict[str, Any]:
        self._add_up()
        return {
            "sums": gather(self._trainer, self._sums),
            "validated": self._validated,
            "of_validation": sorted(self._of_validation),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["sums"]
        self._validated = state_dict.get("validated", False)
        self._of_validation = set(state_dict.get("of_validation", ()))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sums, self._loaded = own_part(trainer, self._loaded), None
        if sums is not None:
            self._sums = sums.cpu()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = loss_of(outputs)
        if loss is None:
            return
        self._losses.append(loss.clone())  # a graph's next replay takes the place of it
        if len(self._losses) >= _MOST_LOSSES:
            self._add_up()

    def _add_up(self) -> None:
        """Add the losses up one by one: so the sum is the same wherever a checkpoint comes."""
        if not self._losses:
            return
        total, count = (0.0, 0.0) if self._sums is None else self._sums.tolist()
        for loss in self._losses:
            value = float(loss)
            if math.isfinite(value):  # others are skipped: see `NonFinite`
                total, count = total + value, count + 1
        self._losses.clear()
        self._sums = torch.tensor([total, count], dtype=torch.float64)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = set(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._validated = True
        self._of_validation |= set(trainer.callback_metrics) - self._before

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        mean = self._mean(trainer)
        metrics = trainer.callback_metrics  # on all ranks: an epoch's metrics are computed together
        if trainer.is_global_zero:
            entry: dict[str, Any] = {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
            }
            if (rate := rate_of(trainer)) is not None:
                entry["lr"] = rate
            if self._sums is not None:
                entry["train/loss"] = mean
            for name, value in sorted(metrics.items()):
                # the values of an earlier epoch's validation are still there: not this epoch's
                stale = name in self._of_validation and not self._validated
                if not stale and not name.startswith("time/"):
                    entry.setdefault(name, float(value))
            earlier = [e for e in self._read() if e["epoch"] < entry["epoch"]]
            write_json(self.file, [*earlier, entry])
        self._sums, self._validated = None, False

    def _mean(self, trainer: Trainer) -> float | None:
        self._add_up()
        if self._sums is None:
            return None
        alone = trainer.world_size == 1  # on a device that may have no double precision
        sums = self._sums if alone else self._sums.to(trainer.strategy.root_device)
        total, count = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        return total / count if count else None

    def _read(self) -> list[dict[str, Any]]:
        """Return the entries so far; a file that can't be read is kept aside, and said."""
        try:
            entries = json.loads(self.file.read_text(encoding="utf-8"))
            if all(isinstance(e["epoch"], int) for e in entries):
                return list(entries)
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, LookupError, RecursionError):
            pass
        aside = self.file.with_name(f"{self.file.stem}-unreadable{self.file.suffix}")
        self.file.replace(aside)
        log.warning("%s can't be read; it begins anew, the former is %s", self.file, aside.name)
        return []
