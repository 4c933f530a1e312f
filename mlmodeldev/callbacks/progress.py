"""Epoch, phase, loss and learning rate: a bar in a terminal, a calm line now and then in a log.

Example of a line::

    epoch 3/8  TRAIN  20/20  loss 1.873  lr 0.00071
"""

from __future__ import annotations

import sys
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar


class ProgressReport(ProgressBar):
    """Show where training stands.

    Args:
        every_seconds: between two lines where standard output is no terminal.
    """

    def __init__(self, every_seconds: float = 30.0) -> None:
        super().__init__()
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
        if not self._enabled or sys.stdout.isatty():
            return
        metrics = "  ".join(
            f"{name} {float(value):.4g}"
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(("train/loss", "val/"))
        )
        self._line(f"{self._epoch(trainer)}  {metrics}  lr {_rate(trainer):.3g}")

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
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"

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
            if outputs is not None and time.monotonic() - self._printed > 0.2:
                self._printed = time.monotonic()  # reading the loss waits for the GPU
                self._bar.set_postfix(loss=_loss(outputs), lr=f"{_rate(trainer):.3g}")
            self._bar.update(0)
        elif time.monotonic() - self._printed > self.every_seconds:
            loss = f"  loss {_loss(outputs)}" if outputs is not None else ""
            place = f"{self._epoch(trainer)}  {phase}  {done}/{int(total)}"
            self._line(f"{place}{loss}  lr {_rate(trainer):.3g}")

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        print(text, flush=True)


def _validation_batches(trainer: Trainer) -> float:
    return sum(trainer.num_val_batches)


def _loss(outputs: Any) -> str:
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return f"{float(loss):.4g}" if loss is not None else "-"


def _rate(trainer: Trainer) -> float:
    rate: float = trainer.optimizers[0].param_groups[0]["lr"]
    return rate
