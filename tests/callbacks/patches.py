"""What tests change in a trial's process before it begins (functions, for they travel by name)."""

from __future__ import annotations

from typing import Any

import torch


def keep_weights() -> None:
    """Save the weights at the end of each validation, beside the trial's own files."""
    import model

    def save(self: Any) -> None:
        folder = self.trainer.default_root_dir
        torch.save(self.state_dict(), f"{folder}/weights-{self.trainer.current_epoch + 1}.pt")

    for kind in (model.DualEncoder, model.TextClassifier):
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


def note_batches() -> None:
    """Append the indices of each training and validation batch to a file."""
    import json

    import model

    kind: Any = model.DualEncoder
    for name in ("training_step", "validation_step"):

        def noting(
            self: Any, batch: Any, batch_idx: int, name: str = name, step: Any = None
        ) -> Any:
            with open(f"{self.trainer.default_root_dir}/batches.jsonl", "a") as file:  # noqa: PTH123
                file.write(json.dumps([name, self.current_epoch, batch["index"].tolist()]) + "\n")
            return original[name](self, batch, batch_idx)

        original[name] = getattr(kind, name)
        setattr(kind, name, noting)


original: dict[str, Any] = {}
