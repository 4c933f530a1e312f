"""Does the model learn one batch by heart? What can't, learns nothing from many.

Example::

    judge(losses_of_one_batch(["model=mine"], steps=60), falls_by=0.2)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.testing.isolated import CheckFailed

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule

    from mlmodeldev.settings.schema import Settings

_FIXED = (
    "training.max_epochs=1",
    "training.limit_train_batches=null",
    "training.accumulate_grad_batches=1",
)


def losses_of_one_batch(overrides: Sequence[str], steps: int) -> dict[str, list[float]]:
    """Train on the first training batch, again and again; return each loss by its name."""
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.training.ranks import World
    from mlmodeldev.training.trainer import make_trainer

    settings = _at_a_steady_rate(compose_settings([*overrides, *_FIXED]))
    data, model = build(settings)
    whole: Any = data.train_dataloader
    data.train_dataloader = lambda: FirstBatch(whole(), steps)  # type: ignore[method-assign]
    recorder = _recorder()
    folder = Path(settings.artefacts.runs_dir) / settings.artefacts.sweep
    trainer = make_trainer(settings, World(), [], [recorder], folder)
    trainer.limit_val_batches = 0
    trainer.fit(model, datamodule=data)
    losses: dict[str, list[float]] = recorder.losses
    return losses


def _at_a_steady_rate(settings: Settings) -> Settings:
    """Change what is no override: those are refused for a model with an optimizer of its own."""
    steady = {"schedule": "constant", "warmup_fraction": 0.0}
    optimizer = settings.optimizer.model_copy(update=steady)
    return settings.model_copy(update={"optimizer": optimizer})


def build(settings: Settings) -> tuple[LightningDataModule, LightningModule]:
    """Return the data and the model that settings name, as a trial makes them."""
    from mlmodeldev.training import build as made
    from mlmodeldev.training.quiet import quiet
    from mlmodeldev.training.ranks import World

    quiet()
    data = made.datamodule(settings, World())
    return data, made.model(settings, data)


class FirstBatch:
    """A loader that gives the first batch of another one, a copy for each step."""

    def __init__(self, loader: Any, steps: int) -> None:
        self.loader, self.steps = loader, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        batch = first_batch(self.loader)
        for _ in range(self.steps):
            yield copy.deepcopy(batch)


def first_batch(loader: Any) -> Any:
    """Return the first batch of a loader, or of several in a list or dict.

    Raises:
        CheckFailed: there is none.
    """
    from pytorch_lightning.utilities import CombinedLoader

    several = isinstance(loader, Mapping | list | tuple)
    try:
        return next(iter(CombinedLoader(loader)))[0] if several else next(iter(loader))
    except StopIteration:
        raise CheckFailed(
            "The training loader gives no batch: fewer examples than processing.batch_size, or an"
            " empty dataset. Lower the batch size in the settings of this test."
        ) from None


def _recorder() -> Any:
    import torch
    from pytorch_lightning import Callback

    class Recorder(Callback):
        """Notes the loss that a step returns; else those that are logged by such a name."""

        def __init__(self) -> None:
            self.losses: dict[str, list[float]] = {}

        def on_train_start(self, trainer: Any, module: Any) -> None:
            # a plateau is one of validation, which there is none of
            schedules = trainer.strategy.lr_scheduler_configs
            schedules[:] = [each for each in schedules if not each.reduce_on_plateau]

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            values: dict[str, Any] = {"the loss of training_step": loss}
            if not isinstance(loss, torch.Tensor):
                logged = trainer.callback_metrics
                values = {name: value for name, value in logged.items() if "loss" in name.lower()}
            for name, value in values.items():
                self.losses.setdefault(name, []).append(float(value))

    return Recorder()


def judge(losses: Mapping[str, Sequence[float]], falls_by: float) -> None:
    """Fail unless a loss falls by a share of its first value, and stays finite.

    Raises:
        CheckFailed: in a paragraph.
    """
    if not losses:
        raise CheckFailed(
            "No loss to look at: training_step returns none and logs none whose name has 'loss',"
            " so nothing can tell whether the model learns. Return the loss, or log it by"
            " self.log('train/loss', loss); a model without one has no use for this test."
        )
    for name, values in losses.items():
        if not all(map(math.isfinite, values)):
            raise CheckFailed(
                f"{name} is not finite after {len(values)} steps on one batch. Lower the learning"
                " rate, or look for a logarithm or a division that meets 0."
            )
    if not any(_falls(values, falls_by) for values in losses.values()):
        listed = "; ".join(
            f"{name}: from {values[0]:.4g} to {_end(values):.4g}" for name, values in losses.items()
        )
        raise CheckFailed(
            f"The model does not learn one batch by heart in {len(next(iter(losses.values())))}"
            f" steps ({listed}; a fall of {falls_by:.0%} is expected). Look whether the optimizer"
            " has all parameters, whether the loss reaches them (no detach, no_grad or argmax"
            " between), and whether labels belong to their inputs. A small learning rate needs more"
            " steps: learns_one_batch(steps=200), or a larger one in this test's settings."
        )


def _falls(values: Sequence[float], share: float) -> bool:
    return values[0] - _end(values) >= share * abs(values[0]) and values[0] > _end(values)


def _end(values: Sequence[float]) -> float:
    last = values[-max(1, len(values) // 10) :]
    return sum(last) / len(last)
