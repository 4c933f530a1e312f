"""Where Lightning's loops stand, read and set for checkpoints that go on at the very same place."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Trainer


def validates_now(trainer: Trainer) -> bool:
    """Whether a validation follows on this batch."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def ends_epoch(trainer: Trainer) -> bool:
    """Whether this batch is the epoch's last, or that of the training."""
    loop = trainer.fit_loop.epoch_loop
    return loop.batch_progress.is_last_batch or loop.done


def step_waiting_schedulers(trainer: Trainer) -> None:
    """Step the schedulers that wait for a metric before the epoch's checkpoint is written.

    Lightning does it after, and not at all in the first epoch of a process that resumes; so what
    was resumed had another learning rate. It passes over them where it "restarts".
    """
    loop = trainer.fit_loop
    if loop.epoch_loop._num_ready_batches_reached():
        loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        loop._restarting = True


def mark_validation_due(fit_loop: dict[str, Any]) -> None:
    """Rewrite the loops' progress to "this batch is complete, its validation has just begun".

    A checkpoint taken after an epoch's last batch otherwise looks to Lightning like a finished
    epoch: it would skip the validation and the epoch's end. In the form written here it goes back
    to the beginning of the validation (`_EvaluationLoop.restarted_mid_evaluation`).
    """
    for part in ("total", "current"):
        progress = fit_loop["epoch_loop.batch_progress"][part]
        progress["completed"] = progress["processed"]
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    done = validation["total"]["completed"]
    validation["total"] = {
        "ready": done + 1, "started": done + 1, "processed": done, "completed": done
    }  # fmt: skip
    validation["current"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validation["is_last_batch"] = False
