"""Recovery checkpoints, the best weights, and the agreed end on a signal.

A checkpoint is taken only where nothing is half done: after an optimizer step (never inside an
accumulation window, whose gradients no checkpoint holds) or at an epoch's end. Where a validation
is due after the step, the checkpoint says so and the resumed trial validates first; Lightning
alone would skip that validation.

It is written at the hook that comes next, when Lightning has handed the metrics of the step or of
the epoch to the loggers: whoever resumes from it has no row to miss; and before any other callback
acts in that hook (`mlmodeldev.callbacks.write_first`), for whoever resumes comes to it again. The
progress that it holds is that of the moment before.

Example::

    Trainer(callbacks=[ResumeCheckpoint(folder, monitor="val/accuracy", mode="max")], ...)
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import Any, Literal, NoReturn

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from mlmodeldev.callbacks.averages import norms_of, put_back
from mlmodeldev.callbacks.logged_names import not_logged, own_names
from mlmodeldev.callbacks.loop_state import (
    ends_epoch,
    mark_validation_due,
    step_waiting_schedulers,
    validates_now,
)
from mlmodeldev.callbacks.nonfinite import NonFinite
from mlmodeldev.callbacks.soundness import NonFiniteWeights, save_sound
from mlmodeldev.errors import TrialInterrupted, UsageError
from mlmodeldev.lease import HEARTBEAT_SECONDS
from mlmodeldev.tracking.metrics_csv import MetricsFile
from mlmodeldev.tracking.wandb_stop import stop_noted, stop_wanted
from mlmodeldev.trial import signals
from mlmodeldev.trial.beats import Phase, during
from mlmodeldev.trial.checkpoint import LOGGED, prune, step_path
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.record import epoch_value
from mlmodeldev.trial.unanswered import answered

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often an owner looks whether it still is one; shorter than a successor takes to begin."""


class ResumeCheckpoint(Checkpoint):
    """Keep a trial recoverable.

    Args:
        folder: the trial's folder, claimed on the first process.
        monitor: metric that decides which weights are best.
        mode: whether more or less of it is better.
        every_n_steps: optimizer steps between checkpoints beside those at each epoch's end.
        required: whether a trial without the metric is wrong. It need not be for one that never
            validates and whose settings don't name it.
        numbers: decides what becomes of weights that are not finite, of which nothing is saved.
    """

    def __init__(
        self,
        folder: TrialFolder,
        monitor: str,
        mode: Literal["max", "min"],
        every_n_steps: int | None = None,
        required: bool = True,
        numbers: NonFinite | None = None,
    ) -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.every_n_steps, self.required = every_n_steps, required
        self.numbers = numbers or NonFinite("raise")
        self._judged_at = -1
        self._steps_are_over = self._epoch_over = False
        self.best_value: float | None = None
        self.best_epoch = self.best_step = 0
        self.stopping = False
        self._last_step = 0
        self._last_beat = self._last_look = 0.0
        self._pending: dict[str, Any] | None = None
        self._must_end = False
        self._trained: list[Tensor] = []
        self._before: dict[str, Any] = {}
        self._warning = ""
        self.reason: str | None = None
        """Why the trial ended for good before its time; None if it did not."""

    @property
    def best_path(self) -> str:
        """Where the best weights are."""
        return str(self.folder.path / "checkpoints" / "best.ckpt")

    # --- state

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "Recovery"

    def state_dict(self) -> dict[str, Any]:
        return {
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "best_step": self.best_step,
            "stopping": self.stopping,
            "monitor": self.monitor,
            "mode": self.mode,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value = state_dict["best_value"]
        self.best_epoch, self.best_step = state_dict["best_epoch"], state_dict["best_step"]
        self.stopping = state_dict["stopping"]
        written = self.folder.read().get("metric") or {}  # for checkpoints that don't name it
        former = state_dict.get("monitor") or written.get("name") or self.monitor
        mode = state_dict.get("mode") or written.get("mode") or self.mode
        if self.best_value is not None and (former, mode) != (self.monitor, self.mode):
            self._judge_by_another(former)

    def _judge_by_another(self, former: str) -> None:
        """Give the best weights, which another metric has chosen, their value of this one."""
        self.best_value = epoch_value(self.folder.path, self.monitor, self.best_epoch + 1)
        self._warning = (
            f"best.ckpt was chosen by {former}, and is judged by {self.monitor} from now on: it"
            f" stays that of epoch {self.best_epoch + 1} until a later one is better"
        )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._pending is not None and "loops" in checkpoint:
            checkpoint.update(self._pending)

    # --- moments

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        signals.listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signals.listen()  # Lightning has put its own handlers there meanwhile
        self._last_step = trainer.global_step
        if self._warning and trainer.is_global_zero:
            log.warning(self._warning)
        if self.stopping and trainer.current_epoch < (trainer.max_epochs or 0):
            trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._heartbeat(trainer)
        if trainer.global_step == self._last_step:
            return  # inside an accumulation window
        self._last_step = trainer.global_step
        if 0 <= trainer.max_steps <= trainer.global_step and not trainer.should_stop:
            # Lightning validates before it ends where it was told to, not where steps run out
            self._steps_are_over = trainer.should_stop = True
        due = validates_now(trainer)
        if not due and ends_epoch(trainer):
            return  # its end follows, and has a checkpoint of its own
        if _must_end(trainer) and not self._prunes(trainer):
            self._take(trainer, validation_due=due)
            self._must_end = True
            return
        every = self.every_n_steps
        if every and trainer.global_step % every == 0:
            self._take(trainer, validation_due=due)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._end_if_due(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_if_due(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_if_due(trainer)
        self._before = dict(trainer.callback_metrics)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_if_due(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._heartbeat(trainer)
        # Ranks may have different numbers of validation batches: they agree in training only.
        if trainer.world_size > 1 or not signals.requested() or self._prunes(trainer):
            return
        if trainer.sanity_checking:
            self._end(trainer)
        if put_back(trainer, self._trained):  # else at the next step, when this validation is over
            self._take(trainer, validation_due=True)
            self.write(trainer)
            self._end(trainer)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._heartbeat(trainer)
        if trainer.world_size == 1 and signals.requested():
            self._end(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None and value is not self._before.get(self.monitor):
            self._judge(trainer)  # else its value is one that training logged before

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._must_end:  # the epoch was ended by the step that was to be the last
            self.write(trainer)
            self._end(trainer)
        if self._judged_at < trainer.current_epoch:
            self._judge_by_training(trainer)
        step_waiting_schedulers(trainer)
        self.stopping = trainer.should_stop and not self._steps_are_over
        self._take(trainer, epoch_over=True)
        if _must_end(trainer) and not self._prunes(trainer):
            self._must_end = True

    # --- parts

    def _judge(self, trainer: Trainer) -> None:
        """Keep the weights if they are the best so far."""
        self._judged_at = trainer.current_epoch
        value = float(trainer.callback_metrics[self.monitor])
        better = self.best_value is None or (
            value > self.best_value if self.mode == "max" else value < self.best_value
        )
        if not trainer.strategy.broadcast(better and math.isfinite(value)):
            return
        if trainer.is_global_zero:
            self.folder.check_owner()
        try:
            with during(Phase.CHECKPOINT):
                save_sound(trainer, self.best_path, self.numbers.usual, weights_only=True)
        except NonFiniteWeights as error:
            self.numbers.lose_weights(trainer, error)
            return
        self.best_value, self.best_epoch = value, trainer.current_epoch
        self.best_step = trainer.global_step

    def _judge_by_training(self, trainer: Trainer) -> None:
        """Judge by what training has logged.

        Raises:
            UsageError: nothing has logged the metric.
        """
        metrics = trainer.callback_metrics
        if self.monitor in metrics:
            self._judge(trainer)
            return
        loop = trainer.fit_loop.epoch_loop
        if trainer.enable_validation and not loop._should_check_val_epoch():
            return  # in a later epoch
        validates = trainer.enable_validation and sum(loop.val_loop.max_batches or (0,)) > 0
        if self.required or (validates and own_names(metrics)):
            raise UsageError(not_logged(self.monitor, metrics))

    def _take(
        self, trainer: Trainer, validation_due: bool = False, epoch_over: bool = False
    ) -> None:
        """Note the progress that the next checkpoint holds; `write` writes it."""
        if signals.requested():
            answered()
        loops = trainer._checkpoint_connector._get_loops_state_dict()
        if validation_due:
            mark_validation_due(loops["fit_loop"])
        logged = {"validation_due": validation_due}
        self._pending = {"loops": loops, "epoch": trainer.current_epoch, LOGGED: logged}
        self._epoch_over = epoch_over

    def write(self, trainer: Trainer) -> None:
        """Write the checkpoint that was taken, if any."""
        if self._pending is None:
            return
        with during(Phase.CHECKPOINT):
            self._save(trainer, self._pending)
        self._pending = None

    def note_weights(self, module: LightningModule) -> None:
        """Note the weights that training has, which a validation may replace for a while."""
        self._trained = norms_of(module)

    def _end_if_due(self, trainer: Trainer) -> None:
        """End where the last checkpoint was to be the last; other callbacks have had this hook."""
        self.write(trainer)
        if self._must_end:
            self._end(trainer)

    def _save(self, trainer: Trainer, pending: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            self.folder.check_owner()
            for logger in trainer.loggers:
                if isinstance(logger, MetricsFile):
                    logger.bring_to_disk()
                    pending[LOGGED]["rows"] = logger.rows
        checkpoints = self.folder.path / "checkpoints"
        path, usual = step_path(checkpoints, trainer.global_step), self.numbers.usual
        try:
            save_sound(trainer, path, usual)
        except NonFiniteWeights as error:
            self.numbers.lose_weights(trainer, error)
            save_sound(trainer, path, usual)
        if trainer.is_global_zero:
            prune(checkpoints)
        if self._epoch_over:
            self._record(trainer, pending["epoch"])

    def _end(self, trainer: Trainer) -> NoReturn:
        raise TrialInterrupted(
            f"interrupted by {signals.requested() or 'a signal'} at step {trainer.global_step};"
            " start it again to go on"
        )

    def _prunes(self, trainer: Trainer) -> bool:
        """End the training for good, exports and all, if that is what was asked for."""
        who = stop_wanted() if trainer.is_global_zero else None
        if trainer.world_size > 1:
            who = trainer.strategy.broadcast(who)
        if who:
            answered()
            self.reason = f"ended early by {who}"
            trainer.should_stop = True
        return bool(who)

    def _heartbeat(self, trainer: Trainer) -> None:
        """Renew the lease now and then; more often, see whether another attempt has taken over.

        A task that outlives its node's death in Slurm's eyes must not write beside its successor.
        """
        now = time.monotonic()
        if not trainer.is_global_zero:
            return
        if now - self._last_beat > HEARTBEAT_SECONDS:
            self._last_beat = self._last_look = now
            self.folder.heartbeat()
        elif now - self._last_look > LOOK_SECONDS:
            self._last_look = now
            with contextlib.suppress(OSError):  # looked at again soon, and before each write
                self.folder.check_owner()

    def _record(self, trainer: Trainer, epoch: int) -> None:
        """Put the epoch into the record; before the last, a lock or disk for a moment is no fault.

        Raises:
            UsageError: training is over, and the record can't be written.
        """
        if not trainer.is_global_zero:
            return
        metric = {
            "name": self.monitor,
            "mode": self.mode,
            "value": self.best_value,
            "epoch": self.best_epoch + 1,
        }
        try:
            self.folder.update(
                epoch=epoch + 1,
                epochs=trainer.max_epochs,
                step=trainer.global_step,
                stopped=self.stopping,
                metric=metric,
            )
        except UsageError as error:
            if trainer.should_stop or epoch + 1 == trainer.max_epochs:
                raise
            log.warning("the record lacks epoch %d until the next: %s", epoch + 1, error)


def _must_end(trainer: Trainer) -> bool:
    """Whether any rank was signalled; all ranks must call this at the same place."""
    signalled = signals.requested() is not None or stop_noted()
    if trainer.world_size == 1:
        return signalled
    return trainer.strategy.reduce_boolean_decision(signalled, all=False)
