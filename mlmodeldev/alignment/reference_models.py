"""The other models of the comparisons: the frozen start, the epoch before, a checkpoint, a Hub one.

    references = ReferenceModels(comparisons, folder)
    references.reads(reduce=gram, pooling="mean")
    columns = references.prepare(trainer, module, resumed=False)     # layers by comparison
    seen = references.run(trainer, moment)                  # what each model's layers gave

A reference is no part of the live model: not in its `state_dict`, optimizer, or mode. A copy of the
model runs on the batch that the live one has just validated, in the same way (see `replay`); what
it logs goes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from mlmodeldev.alignment.capture import Capture, Seen, match_layers
from mlmodeldev.alignment.comparison import OWN_PAST, Comparison
from mlmodeldev.alignment.hsic import gram
from mlmodeldev.alignment.loaded_models import load_model, run_model
from mlmodeldev.alignment.replay import (
    Moment,
    QuietTrainer,
    copy_of,
    fresh,
    random_numbers_of,
    validate_as_then,
)
from mlmodeldev.alignment.weights import is_weights_file, load_weights, save_weights, weights_of
from mlmodeldev.errors import UsageError

SHARDED = ("fsdp", "deepspeed", "model_parallel", "modelparallel")


class ReferenceModels:
    """The reference models by what they are: ``start``, ``previous``, a path or a Hub name."""

    def __init__(
        self,
        comparisons: Mapping[str, Comparison],
        directory: Path,
    ) -> None:
        self._comparisons = comparisons
        self._reduce: Callable[[Tensor], Any] = gram
        self._pooling: str | Mapping[str, str] = "mean"
        self._batch_dim: int | Mapping[str, int] = 0
        self._start_file = directory / "cka" / "start.safetensors"
        self._as_built: dict[str, Tensor] | None = None
        self._models: dict[str, ReferenceModel] = {}
        self.previous: dict[str, Tensor] | None = None

    def reads(
        self,
        reduce: Callable[[Tensor], Any],
        pooling: str | Mapping[str, str],
        batch_dim: int | Mapping[str, int] = 0,
    ) -> None:
        """Say how layers are read: as those of the live model (see `capture.Capture`)."""
        self._reduce, self._pooling, self._batch_dim = reduce, pooling, batch_dim

    def setup(self, module: LightningModule) -> None:
        """Keep the weights as built: a checkpoint loaded later must not pass for the start."""
        uses_start = any(c.against == "start" for c in self._comparisons.values())
        if uses_start and not self._start_file.exists():
            self._as_built = weights_of(module)

    def prepare(
        self, trainer: Trainer, module: LightningModule, resumed: bool
    ) -> dict[str, list[str]]:
        """Make the models and return the layers of each comparison's columns.

        Raises `UsageError` for models that cannot be made and patterns that match nothing.
        """
        self._models, columns = {}, {}
        for name, comparison in self._comparisons.items():
            reference = self._reference_of(comparison, trainer, module, resumed)
            columns[name] = match_layers(
                reference.module if reference else module, comparison.patterns_b
            )
            if reference:
                reference.layers = list(dict.fromkeys([*reference.layers, *columns[name]]))
                reference.inputs = reference.inputs or comparison.inputs
        self._as_built = None
        for reference in self._models.values():
            Capture(reference.module, reference.layers, pooling=self._pooling)
        return columns

    def is_ready(self, against: str) -> bool:
        """Whether there is something to compare with: not yet for ``previous`` at first."""
        return against == "self" or self._models[against].ready

    def to(self, device: torch.device) -> None:
        """Move all models to the device."""
        for reference in self._models.values():
            reference.module.to(device)

    def clear(self) -> None:
        """Let go of the models."""
        self._models = {}

    def run(self, trainer: Trainer, moment: Moment) -> dict[str, Seen[Any]]:
        """Run every model that is ready on the batch of that moment; return its reduced layers."""
        return {
            against: self._run_one(reference, trainer, moment)
            for against, reference in self._models.items()
            if reference.ready
        }

    @property
    def any_ready(self) -> bool:
        """Whether a model but the live one is to run."""
        return any(reference.ready for reference in self._models.values())

    def move_previous_on(self, module: LightningModule) -> None:
        """Make the live weights the ``previous`` ones, if they are compared with."""
        reference = self._models.get("previous")
        if reference:
            self.previous = weights_of(module)
            load_weights(reference.module, self.previous)
            reference.ready = True

    def _run_one(self, reference: ReferenceModel, trainer: Trainer, moment: Moment) -> Seen[Any]:
        module = reference.module
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(trainer.precision_plugin.val_step_context())
            capture = stack.enter_context(
                Capture(module, reference.layers, self._reduce, self._pooling, self._batch_dim)
            )
            if isinstance(module, LightningModule):
                # Another class's attributes are its own.
                then = moment if reference.is_copy else replace(moment, attributes={})
                validate_as_then(module, QuietTrainer(trainer, module), then)
            else:
                stack.enter_context(random_numbers_of(moment.random))
                run_model(module, reference.inputs, fresh(moment.batch))
            return capture.take_usable()

    def _reference_of(
        self, comparison: Comparison, trainer: Trainer, module: LightningModule, resumed: bool
    ) -> ReferenceModel | None:
        against = comparison.against
        if against == "self":
            return None
        if against not in self._models:
            self._models[against] = self._make(against, trainer, module, resumed)
        return self._models[against]

    def _make(
        self, against: str, trainer: Trainer, module: LightningModule, resumed: bool
    ) -> ReferenceModel:
        if against not in OWN_PAST and not is_weights_file(against):
            return ReferenceModel(load_model(against))
        strategy = type(trainer.strategy).__name__.lower()
        if any(kind in strategy for kind in SHARDED):
            raise UsageError(
                f"cka: against={against!r} needs whole weights on a device, not {strategy}"
            )
        twin = copy_of(module)
        if against == "start":
            self._fix_start(trainer, twin, resumed)
        elif against != "previous":
            load_weights(twin, Path(against))
        elif self.previous is not None:
            load_weights(twin, self.previous)
        return ReferenceModel(
            twin, is_copy=True, ready=against != "previous" or self.previous is not None
        )

    def _fix_start(self, trainer: Trainer, twin: LightningModule, resumed: bool) -> None:
        """Give the copy the first weights of the run: from the file, unless the run begins now."""
        fitting = trainer.state.fn == "fit"
        if fitting and not resumed:
            weights = weights_of(twin)
        elif self._start_file.exists():
            load_weights(twin, self._start_file)
            return
        elif fitting and self._as_built:
            rank_zero_warn(f"cka: {self._start_file} is missing; start = the weights as built")
            weights = self._as_built
            load_weights(twin, weights)
        else:
            raise UsageError(f"cka: against=start needs {self._start_file}, which is missing")
        # All ranks have looked for the file before one of them writes it.
        trainer.strategy.barrier("cka-start")
        if trainer.is_global_zero:
            save_weights(weights, self._start_file)


@dataclass
class ReferenceModel:
    """A reference model, the layers read from it, and whether it has weights to compare with.

    `is_copy` says that it is of the live model's making.
    """

    module: nn.Module
    layers: list[str] = field(default_factory=list)
    inputs: Mapping[str, str] | None = None
    is_copy: bool = False
    ready: bool = True
