"""How fast training is, and how much of the time it waits for data.

Logs ``time/samples_per_second``, ``time/step_seconds`` and ``time/data_wait_share`` (0 to 1).

Example::

    Trainer(callbacks=[Throughput(batch_size=64)], ...)
"""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.alignment.present import size_of_batch


class Throughput(Callback):
    """Measure over the batches between two logged rows; validation and pauses don't count.

    Args:
        batch_size: examples in a global batch, where a batch itself has no tensor to tell by.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._all_waited = self._all_elapsed = 0.0
        self._restart()

    @property
    def data_wait_share(self) -> float | None:
        """Share of the time since training began that was spent waiting for data, 0 to 1.

        None: nothing was measured yet.
        """
        return self._all_waited / self._all_elapsed if self._all_elapsed else None

    def _restart(self) -> None:
        self._begin: float | None = None
        self._last_end: float | None = None
        self._waited = 0.0
        self._batches = self._examples = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._last_end is not None:
            self._waited += now - self._last_end
            self._all_waited += now - self._last_end
        if self._begin is None:
            self._begin = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._begin is not None:
            self._all_elapsed += now - (self._last_end or self._begin)
        self._last_end = now
        self._batches += 1
        own = size_of_batch(batch)
        self._examples += self.batch_size if own is None else own * trainer.world_size
        step = trainer.global_step or batch_idx + 1  # without an optimizer there are no steps
        if self._begin is None or (step % trainer.log_every_n_steps):  # type: ignore[attr-defined]
            return
        elapsed = now - self._begin
        pl_module.log_dict(
            {
                "time/samples_per_second": self._examples / elapsed,
                "time/step_seconds": elapsed / self._batches,
                "time/data_wait_share": self._waited / elapsed,
            },
            rank_zero_only=True,
        )
        self._restart()
        self._begin = now
        self._last_end = now
