"""The other models of the comparisons: the frozen start, the epoch before, a checkpoint, a Hub one.

    references = ReferenceModels(comparisons, folder, call="validation_step", …)
    columns = references.prepare(trainer, module, resumed=False)     # layers by comparison
    references.run(trainer, batch, batch_idx, random_states())       # Grams by model and layer

A reference is no part of the live model: not in its `state_dict`, optimizer, or mode. It runs on
the batch that the live model has just validated, through the same method and with the random
numbers of that moment; what it logs goes nowhere and what it appends to lists is taken off again.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchmetrics import Metric

from mlmodeldev.alignment.capture import Capture, match_layers
from mlmodeldev.alignment.comparison import OWN_PAST, Comparison
from mlmodeldev.alignment.hsic import Gram
from mlmodeldev.atomic import atomic_path
from mlmodeldev.errors import UsageError

Module = TypeVar("Module", bound=nn.Module)

CALLS = ("validation_step", "forward", "predict_step")
SHARDED = ("fsdp", "deepspeed", "model_parallel", "modelparallel")


class ReferenceModels:
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
        self._models: dict[str, ReferenceModel] = {}
        self.previous: dict[str, Tensor] | None = None

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

    def run(
        self, trainer: Trainer, batch: Any, batch_idx: int, states: list[Tensor]
    ) -> dict[str, dict[str, Gram]]:
        """Run every model that is ready on the batch; return its reduced layers."""
        return {
            against: self._run_one(reference, trainer, batch, batch_idx, states)
            for against, reference in self._models.items()
            if reference.ready
        }

    def move_previous_on(self, module: LightningModule) -> None:
        """Make the live weights the ``previous`` ones, if they are compared with."""
        reference = self._models.get("previous")
        if reference:
            self.previous = weights_of(module)
            load_weights(reference.module, self.previous)
            reference.ready = True

    def _run_one(
        self,
        reference: ReferenceModel,
        trainer: Trainer,
        batch: Any,
        batch_idx: int,
        states: list[Tensor],
    ) -> dict[str, Gram]:
        with ExitStack() as stack:
            stack.enter_context(isolate_rng())
            set_random_states(states)
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(trainer.precision_plugin.val_step_context())
            hooks = Capture(reference.module, reference.layers, self._reduce, self._pooling)
            capture = stack.enter_context(hooks)
            if isinstance(reference.module, LightningModule):
                run_like(reference.module, self._call, batch, batch_idx)
            else:
                run_model(reference.module, reference.inputs, batch)
            return capture.take()

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
        return ReferenceModel(twin, ready=against != "previous" or self.previous is not None)

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
    """A reference model, the layers read from it, and whether it has weights to compare with."""

    module: nn.Module
    layers: list[str] = field(default_factory=list)
    inputs: Mapping[str, str] | None = None
    ready: bool = True


def load_model(name: str) -> nn.Module:
    """Load a frozen transformers model from a folder or the Hub, leaving the random state alone.

    Raises `UsageError` if there is none.
    """
    from transformers import AutoModel

    try:
        with isolate_rng(), _quiet_transformers():
            model, info = AutoModel.from_pretrained(name, output_loading_info=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"no model could be loaded from {name!r}: {reason}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        warnings.warn(
            f"cka: {len(missing)} weights of {name!r} are not in its files and therefore random: "
            f"{', '.join(missing[:4])}",
            stacklevel=2,
        )
    frozen: nn.Module = freeze(model)
    return frozen


def is_weights_file(name: str) -> bool:
    """Whether `name` is a file of weights rather than a folder or a Hub name."""
    return Path(name).suffix in (".ckpt", ".pt", ".safetensors")


def freeze(module: Module) -> Module:
    """Set eval mode and no gradient on a module that belongs to us; return it."""
    module.eval().requires_grad_(False)
    return module


def copy_of(module: LightningModule) -> LightningModule:
    """Return a frozen copy in eval mode, without the trainer, whose `log` does nothing."""
    twin = copy.deepcopy(module)
    twin.log = twin.log_dict = _ignore  # type: ignore[method-assign]
    return freeze(twin)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of `state_dict` as copies on the CPU."""
    with torch.inference_mode(False):
        return {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in module.state_dict().items()
            if isinstance(value, Tensor)
        }


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file(dict(weights), temporary)


def load_weights(module: nn.Module, source: Path | Mapping[str, Tensor]) -> None:
    """Put weights (.safetensors, a Lightning .ckpt, or tensors) into `module`.

    Raises `UsageError` if the file cannot be read or does not fit the module.
    """
    weights = _read(source) if isinstance(source, Path) else source
    tensors = {name for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    missing = sorted(tensors - set(weights))
    try:
        with torch.no_grad():
            wrong = missing or module.load_state_dict(dict(weights), strict=False).unexpected_keys
    except RuntimeError as error:  # shapes differ: torch lists them, one a line
        wrong = [str(error).splitlines()[-1].strip()]
    if wrong:
        origin = source if isinstance(source, Path) else "the weights"
        raise UsageError(f"{origin} does not fit {type(module).__name__}: {wrong[0]}")


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"the weights in {path} cannot be read: {reason}") from error
    weights: Mapping[str, Tensor] = saved.get("state_dict", saved)
    return weights


def run_like(reference: LightningModule, call: str, batch: Any, batch_idx: int) -> None:
    """Run a copy on a batch as validation ran the live model: the method named `call`.

    Raises `UsageError` if the method needs the trainer, which the copy does not have.
    """
    lengths = {k: len(v) for k, v in vars(reference).items() if isinstance(v, list)}
    arguments = (batch,) if call == "forward" else (batch, batch_idx)
    try:
        _quietly(getattr(reference, call), *arguments)
    except RuntimeError as error:
        if "is not attached to a `Trainer`" not in str(error):
            raise
        raise UsageError(
            f"cka: {call} of {type(reference).__name__} uses self.trainer, which a reference copy "
            f"does not have; set reference_call to one of {', '.join(CALLS)} that does not"
        ) from error
    finally:
        _forget(reference, lengths)


def run_model(model: nn.Module, inputs: Mapping[str, str] | None, batch: Any) -> None:
    """Run a transformers model on the entries of `batch` that its forward takes.

    Raises `UsageError` if the batch has none of them.
    """
    if isinstance(batch, Mapping):
        names = list(inspect.signature(model.forward).parameters)
        chosen = inputs or {name: name for name in names if name in batch}
        absent = [entry for entry in chosen.values() if entry not in batch]
        if not chosen or absent:
            raise UsageError(
                f"cka: {type(model).__name__} takes {', '.join(names[:4])}, … but the batch "
                f"has {', '.join(map(str, batch))}; map them with `inputs`"
            )
        model(**{argument: batch[entry] for argument, entry in chosen.items()})
    else:
        model(batch if isinstance(batch, Tensor) else batch[0])


def random_states() -> list[Tensor]:
    """Return torch's random states, of the CPU and of each GPU in use."""
    cuda: Any = torch.cuda  # partly without types
    return [torch.get_rng_state(), *(cuda.get_rng_state_all() if cuda.is_initialized() else [])]


def set_random_states(states: list[Tensor]) -> None:
    """Set what `random_states` returned."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and reports: what matters of them is said in one line instead."""
    from transformers import utils

    logging: Any = utils.logging  # without types
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _ignore(*_args: Any, **_kwargs: Any) -> None:
    return None


def _quietly(call: Callable[..., Any], *arguments: Any) -> None:
    """Call without the warnings that the live model has already given for this batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call(*arguments)


def _forget(reference: LightningModule, lengths: Mapping[str, int]) -> None:
    for name, length in lengths.items():
        kept = getattr(reference, name, None)
        if isinstance(kept, list):
            del kept[length:]
    for part in reference.modules():
        if isinstance(part, Metric):
            part.reset()
