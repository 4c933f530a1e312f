"""The other models of all comparisons in one run: made once, run on each measured batch.

    others = Others(comparisons, directory, "validation_step", reduce, pooling)
    others.setup(module)                       # before a checkpoint is loaded
    others.prepare(trainer, module, resumed)   # after
    grams = others.run(trainer, batch, 0, random_states())["start"]

The start of training lies in ``cka/start.safetensors``, written before the first step, so that a
run killed at any moment and resumed measures against the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from mlmodeldev.alignment import reference
from mlmodeldev.alignment.capture import Capture, match_layers
from mlmodeldev.alignment.comparison import OWN_PAST, Comparison
from mlmodeldev.alignment.gram import Gram
from mlmodeldev.errors import UsageError

SHARDED = ("fsdp", "deepspeed", "model_parallel", "modelparallel")


@dataclass
class Other:
    """A reference model, the layers read from it, and whether it has weights to compare with."""

    module: nn.Module
    layers: list[str] = field(default_factory=list)
    inputs: Mapping[str, str] | None = None
    ready: bool = True


class Others:
    """The reference models by what they are: ``start``, ``previous``, a path or a Hub name."""

    def __init__(
        self,
        comparisons: Mapping[str, Comparison],
        directory: Path,
        *,
        call: str,
        reduce: Callable[[Tensor], Gram],
        pooling: str | Mapping[str, str],
    ) -> None:
        self._comparisons = comparisons
        self._call = call
        self._reduce = reduce
        self._pooling = pooling
        self._start_file = directory / "cka" / "start.safetensors"
        self._as_built: dict[str, Tensor] | None = None
        self._models: dict[str, Other] = {}
        self.previous: dict[str, Tensor] | None = None

    def setup(self, module: LightningModule) -> None:
        """Keep the weights as built: a checkpoint loaded later must not pass for the start."""
        uses_start = any(c.against == "start" for c in self._comparisons.values())
        if uses_start and not self._start_file.exists():
            self._as_built = reference.weights_of(module)

    def prepare(
        self, trainer: Trainer, module: LightningModule, resumed: bool
    ) -> dict[str, list[str]]:
        """Make the models and return the layers of each comparison's columns.

        Raises `UsageError` for models that cannot be made and patterns that match nothing.
        """
        self._models, columns = {}, {}
        for name, comparison in self._comparisons.items():
            other = self._find(comparison, trainer, module, resumed)
            columns[name] = match_layers(other.module if other else module, comparison.patterns_b)
            if other:
                other.layers = list(dict.fromkeys([*other.layers, *columns[name]]))
                other.inputs = other.inputs or comparison.inputs
        self._as_built = None
        for other in self._models.values():
            Capture(other.module, other.layers, pooling=self._pooling)
        return columns

    def is_ready(self, against: str) -> bool:
        """Whether there is something to compare with: not yet for ``previous`` at first."""
        return against == "self" or self._models[against].ready

    def to(self, device: torch.device) -> None:
        """Move all models to the device."""
        for other in self._models.values():
            other.module.to(device)

    def clear(self) -> None:
        """Let go of the models."""
        self._models = {}

    def run(
        self, trainer: Trainer, batch: Any, batch_idx: int, states: list[Tensor]
    ) -> dict[str, dict[str, Gram]]:
        """Run every model that is ready on the batch; return its reduced layers."""
        return {
            against: self._run_one(other, trainer, batch, batch_idx, states)
            for against, other in self._models.items()
            if other.ready
        }

    def move_previous_on(self, module: LightningModule) -> None:
        """Make the live weights the ``previous`` ones, if they are compared with."""
        other = self._models.get("previous")
        if other:
            self.previous = reference.weights_of(module)
            reference.load_weights(other.module, self.previous)
            other.ready = True

    def _run_one(
        self, other: Other, trainer: Trainer, batch: Any, batch_idx: int, states: list[Tensor]
    ) -> dict[str, Gram]:
        with ExitStack() as stack:
            stack.enter_context(isolate_rng())
            set_random_states(states)
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(trainer.precision_plugin.val_step_context())
            hooks = Capture(other.module, other.layers, self._reduce, self._pooling)
            capture = stack.enter_context(hooks)
            if isinstance(other.module, LightningModule):
                reference.run_like(other.module, self._call, batch, batch_idx)
            else:
                reference.run_model(other.module, other.inputs, batch)
            return capture.take()

    def _find(
        self, comparison: Comparison, trainer: Trainer, module: LightningModule, resumed: bool
    ) -> Other | None:
        against = comparison.against
        if against == "self":
            return None
        if against not in self._models:
            self._models[against] = self._make(against, trainer, module, resumed)
        return self._models[against]

    def _make(
        self, against: str, trainer: Trainer, module: LightningModule, resumed: bool
    ) -> Other:
        if against not in OWN_PAST and not reference.is_weights_file(against):
            return Other(reference.load_model(against))
        strategy = type(trainer.strategy).__name__.lower()
        if any(kind in strategy for kind in SHARDED):
            raise UsageError(
                f"cka: against={against!r} needs whole weights on a device, not {strategy}"
            )
        twin = reference.copy_of(module)
        if against == "start":
            self._fix_start(trainer, twin, resumed)
        elif against != "previous":
            reference.load_weights(twin, Path(against))
        elif self.previous is not None:
            reference.load_weights(twin, self.previous)
        return Other(twin, ready=against != "previous" or self.previous is not None)

    def _fix_start(self, trainer: Trainer, twin: LightningModule, resumed: bool) -> None:
        """Give the copy the first weights of the run: from the file, unless the run begins now."""
        fitting = trainer.state.fn == "fit"
        if fitting and not resumed:
            weights = reference.weights_of(twin)
        elif self._start_file.exists():
            reference.load_weights(twin, self._start_file)
            return
        elif fitting and self._as_built:
            rank_zero_warn(f"cka: {self._start_file} is missing; start = the weights as built")
            weights = self._as_built
            reference.load_weights(twin, weights)
        else:
            raise UsageError(f"cka: against=start needs {self._start_file}, which is missing")
        # All ranks have looked for the file before one of them writes it.
        trainer.strategy.barrier("cka-start")
        if trainer.is_global_zero:
            reference.save_weights(weights, self._start_file)


def random_states() -> list[Tensor]:
    """Return torch's random states, of the CPU and of each GPU in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def set_random_states(states: list[Tensor]) -> None:
    """Set what `random_states` returned."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
