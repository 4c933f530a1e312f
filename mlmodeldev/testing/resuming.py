"""Does a killed trial go on to the weights of an undisturbed one?

Example::

    train(["artefacts.trial=whole"])              # batches seen
    train(["artefacts.trial=broken"], kill_at=6)  # the process is gone
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.testing.isolated import CheckFailed

_EVERY = "training.checkpoint_every_n_steps=2"


def train(overrides: Sequence[str], kill_at: int | None = None) -> int:
    """Run trainer.py's ``train``; return how many batches this start has trained on.

    Args:
        overrides: of the settings.
        kill_at: number of the batch, from 1, at whose start the process is killed.
    """
    from pytorch_lightning import Callback, Trainer

    from mlmodeldev.settings.composition import compose_settings

    class Counter(Callback):
        batches = 0

        def on_train_batch_start(self, *_: Any) -> None:
            self.batches += 1
            if self.batches == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    counter = Counter()
    fit = Trainer.fit

    def counted(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        trainer.callbacks.append(counter)  # type: ignore[attr-defined]
        fit(trainer, *args, **kwargs)

    Trainer.fit = counted  # type: ignore[method-assign, assignment]
    importlib.import_module("trainer").train(compose_settings([_EVERY, *overrides]))
    return counter.batches


def place_of_kill(batches: int) -> int:
    """Return the batch, from 1, at whose start a trial of so many is killed.

    Raises:
        CheckFailed: the trial is too short to be interrupted.
    """
    if batches < 4:
        raise CheckFailed(
            f"The trial of this test has {batches} training batches in all, too few to be"
            " interrupted in the middle. Raise training.max_epochs or"
            " training.limit_train_batches in the settings of this test, or lower"
            " processing.batch_size."
        )
    return batches * 3 // 4 + 1  # after a checkpoint, and in the middle of an epoch


def never_killed(at: int) -> str:
    """Return what to say when the second trial ended before the place of its kill."""
    return (
        f"The same settings gave a shorter trial the second time: it ended before batch {at}. The"
        " data or the number of batches depend on something that is not seeded: a random split"
        " without a generator, or a file that the first trial has written."
    )


def differences(one: str, other: str) -> list[str]:
    """Return the names of weights and buffers in which the newest checkpoints differ."""
    import torch

    first, second = (_weights(Path(folder)) for folder in (one, other))
    names = [*first, *(name for name in second if name not in first)]
    return [
        name
        for name in names
        if name not in first
        or name not in second
        or not torch.equal(first[name].nan_to_num(), second[name].nan_to_num())
    ]


def _weights(folder: Path) -> dict[str, Any]:
    import torch

    newest = max((folder / "checkpoints").glob("step-*.ckpt"), default=None)
    if newest is None:
        raise CheckFailed(f"{folder}: the trial has written no checkpoint")
    # of this test's own trial, so what a model has put into it may be of any type
    state: dict[str, Any] = torch.load(newest, map_location="cpu", weights_only=False)
    weights: dict[str, Any] = state["state_dict"]
    return weights


def reason(different: Sequence[str], undisturbed: Sequence[str]) -> str:
    """Return why an interrupted trial ended with other weights.

    Args:
        different: names in which it differs from the undisturbed one.
        undisturbed: names in which a second undisturbed one differs.
    """
    listed = ", ".join(different[:3]) + (f" and {len(different) - 3} more" if different[3:] else "")
    if undisturbed:
        return (
            f"Two undisturbed trials with one seed end with other weights ({listed}), so no"
            " resume can be exact. Something draws from a generator that training.seed does not"
            " reach: random.Random(), numpy.random.default_rng() or torch.Generator() made without"
            " a seed, the time, hash() of a text, or the order of a set or of a folder's files."
            " Draw from torch's, numpy's or random's own functions, or seed the generator."
        )
    return (
        f"A trial that was killed and started again ends with other weights than an undisturbed"
        f" one ({listed}), though two undisturbed ones agree: something that training uses is not"
        " in the checkpoint. Look for attributes of the model, the data or a callback that steps"
        " change (counters, queues, running means, generators): make tensors buffers"
        " (register_buffer), and save the rest in on_save_checkpoint and on_load_checkpoint"
        " (state_dict and load_state_dict of a DataModule or callback)."
    )
