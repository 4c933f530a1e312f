"""Epoch, phase, loss and learning rate: a bar in a terminal, a calm line now and then in a log.

Example of lines, within an epoch and at its end::

    epoch 3/8  TRAIN  20/20  loss 1.873  lr 0.00071
    epoch 3/8  val_acc 0.83  train_loss 1.21  val_loss 0.9  lr 0.00071

At its end stands the monitored value, then all else that the module logs, by the module's names.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar

from mlmodeldev.callbacks.figures import figures, loss_of, rate_of

_FEW = 3
"""Values on a bar, and on a line within an epoch, of a step that returns no loss."""


class ProgressReport(ProgressBar):
    """Show where training stands.

    Args:
        every_seconds: between two lines where standard output is no terminal.
        monitor: what is shown first.
    """

    def __init__(self, every_seconds: float = 30.0, monitor: str | None = None) -> None:
        super().__init__()
        self.monitor = monitor
        self.every_seconds = every_seconds
        self._enabled = True
        self._bar: Any = None
        self._printed = time.monotonic()

    def disable(self) -> None:
        """Show nothing (Lightning calls this on all processes but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    # --- training

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self._open(trainer, "TRAIN", self.total_train_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is None and self._enabled and sys.stdout.isatty():
            self._open(trainer, "TRAIN", self.total_train_batches)  # after a resume mid-epoch
        self._show(trainer, "TRAIN", batch_idx + 1, self.total_train_batches, outputs)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        logged = self._logged(trainer)  # on all ranks: an epoch's metrics are computed together
        if not self._enabled or sys.stdout.isatty():
            return
        self._line("  ".join([self._epoch(trainer), *logged, *_rate(trainer)]))

    # --- validation

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        if trainer.state.fn == "fit":
            self._open(trainer, "VALID", _validation_batches(trainer))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._show(trainer, "VALID", batch_idx + 1, _validation_batches(trainer), None)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    # --- parts

    def _epoch(self, trainer: Trainer) -> str:
        last = trainer.max_epochs
        of = f"/{last}" if last is not None and last > 0 else ""
        return f"epoch {trainer.current_epoch + 1}{of}"

    def _logged(self, trainer: Trainer) -> list[str]:
        return [f"{k} {v:.4g}" for k, v in figures(trainer, self.monitor).items()]

    def _now(self, trainer: Trainer, outputs: Any) -> list[str]:
        """Return the loss of a step; without one, the first of what its module logs."""
        loss = loss_of(outputs)
        return self._logged(trainer)[:_FEW] if loss is None else [f"loss {float(loss):.4g}"]

    def _open(self, trainer: Trainer, phase: str, total: float) -> None:
        if not self._enabled or not sys.stdout.isatty() or trainer.sanity_checking:
            return
        from tqdm import tqdm

        count = None if total == float("inf") else int(total)
        self._bar = tqdm(
            total=count, desc=f"{self._epoch(trainer)} {phase}", leave=False, file=sys.stdout
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, trainer: Trainer, phase: str, done: int, total: float, outputs: Any) -> None:
        if not self._enabled or trainer.sanity_checking:
            return
        if self._bar is not None:
            self._bar.n = done
            if phase == "TRAIN" and time.monotonic() - self._printed > 0.2:
                self._printed = time.monotonic()  # reading the loss waits for the GPU
                shown = [*self._now(trainer, outputs), *_rate(trainer)]
                self._bar.set_postfix_str(", ".join(one.replace(" ", "=") for one in shown))
            self._bar.update(0)
        elif time.monotonic() - self._printed > self.every_seconds:
            of = "" if total == float("inf") else f"/{int(total)}"
            now = self._now(trainer, outputs) if phase == "TRAIN" else []
            place = [self._epoch(trainer), phase, f"{done}{of}"]
            self._line("  ".join([*place, *now, *_rate(trainer)]))

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        print(text, flush=True)


def _validation_batches(trainer: Trainer) -> float:
    return sum(trainer.num_val_batches)


def _rate(trainer: Trainer) -> list[str]:
    rate = rate_of(trainer)
    return [] if rate is None else [f"lr {rate:.3g}"]
