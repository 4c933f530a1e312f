"""What tests change in a trial's process before it begins (functions, for they travel by name)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def keep_weights() -> None:
    """Save the weights at the end of each validation, beside the trial's own files."""
    import model
    from examples import text_classifier

    def save(self: Any) -> None:
        folder = self.trainer.default_root_dir
        torch.save(self.state_dict(), f"{folder}/weights-{self.trainer.current_epoch + 1}.pt")

    for kind in (model.DualEncoder, text_classifier.TextClassifier):
        kind.on_validation_epoch_end = save


def _spoil(steps: range, value: float) -> None:
    import model

    kind: Any = model.DualEncoder
    step = kind.training_step

    def spoiled(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = step(self, batch, batch_idx)
        batches = self.trainer.num_training_batches
        number = self.trainer.current_epoch * batches + batch_idx
        return loss * value if number in steps else loss

    kind.training_step = spoiled


def nan_at_3() -> None:
    """Make the loss of the fourth batch NaN."""
    _spoil(range(3, 4), float("nan"))


def infinite_at_3_and_4() -> None:
    """Make the losses of two batches infinite."""
    _spoil(range(3, 5), float("inf"))


def never_finite() -> None:
    """Make every loss NaN."""
    _spoil(range(10**6), float("nan"))


def slower_than_the_bar() -> None:
    """Let each step last longer than the 0.1 s in which a bar is drawn once at most."""
    import time

    _before_each_step(lambda *_: time.sleep(0.11))


def note_batches() -> None:
    """Append the indices of each training and validation batch to a file."""

    def note(module: Any, name: str, batch: Any) -> None:
        with Path(module.trainer.default_root_dir, "batches.jsonl").open("a") as file:
            file.write(json.dumps([name, module.current_epoch, batch["index"].tolist()]) + "\n")

    _before_each_step(note)


def _before_each_step(act: Callable[[Any, str, Any], None]) -> None:
    import model

    def wrap(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def acting(self: Any, batch: Any, batch_idx: int) -> Any:
            act(self, name, batch)
            return step(self, batch, batch_idx)

        return acting

    for name in ("training_step", "validation_step"):
        setattr(model.DualEncoder, name, wrap(name, getattr(model.DualEncoder, name)))


def _kill_in_export(name: str, after: bool) -> None:
    """Die by SIGKILL before or after an export's folder is written."""
    import os
    import signal

    from mlmodeldev.callbacks.export import Export

    write = Export._write

    def killed(self: Any, which: str, *arguments: Any) -> None:
        if which == name and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, which, *arguments)
        if which == name and after:
            os.kill(os.getpid(), signal.SIGKILL)

    Export._write = killed  # type: ignore[method-assign]


def killed_before_last() -> None:
    """Die when nothing is exported yet."""
    _kill_in_export("last", after=False)


def killed_before_best() -> None:
    """Die between the two."""
    _kill_in_export("best", after=False)


def killed_after_best() -> None:
    """Die with both written, before the trial is done."""
    _kill_in_export("best", after=True)


def failing_export() -> None:
    """Raise an error in place of the export."""
    from mlmodeldev.callbacks.export import Export

    def fail(*arguments: Any) -> None:
        raise RuntimeError("no such luck")

    Export._write = fail  # type: ignore[method-assign]
