"""The other model of a comparison: the frozen start, the epoch before, a checkpoint, a Hub model.

    reference = copy_of(module)                     # no gradient, eval mode, on its own
    load_weights(reference, Path("cka/start.safetensors"))
    run_like(reference, "validation_step", batch, 0)

A reference is no part of the live model: not in its `state_dict`, optimizer, or mode. It runs on
the batch that the live model has just validated, through the same method and with the random
numbers of that moment; what it logs goes nowhere and what it appends to lists is taken off again.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchmetrics import Metric

from mlmodeldev.atomic import whole_path
from mlmodeldev.errors import UsageError

CALLS = ("validation_step", "forward", "predict_step")


def copy_of(module: LightningModule) -> LightningModule:
    """Return a frozen copy in eval mode, without the trainer, whose `log` does nothing."""
    twin = copy.deepcopy(module)
    twin.log = twin.log_dict = _ignore  # type: ignore[method-assign]
    return freeze(twin)


def freeze(module: Any) -> Any:
    """Set eval mode and no gradient on a module that belongs to us; return it."""
    return module.eval().requires_grad_(False)


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

    with whole_path(path) as temporary:
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
    return freeze(model)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and reports: what matters of them is said in one line instead."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def is_weights_file(name: str) -> bool:
    """Whether `name` is a file of weights rather than a folder or a Hub name."""
    return Path(name).suffix in (".ckpt", ".pt", ".safetensors")


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
        known = inspect.signature(model.forward).parameters
        chosen = inputs or {name: name for name in known if name in batch}
        absent = [entry for entry in chosen.values() if entry not in batch]
        if not chosen or absent:
            raise UsageError(
                f"cka: {type(model).__name__} takes {', '.join(list(known)[:4])}, … but the batch "
                f"has {', '.join(map(str, batch))}; map them with `inputs`"
            )
        model(**{argument: batch[entry] for argument, entry in chosen.items()})
    else:
        model(batch if isinstance(batch, Tensor) else batch[0])


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"the weights in {path} cannot be read: {reason}") from error
    return saved.get("state_dict", saved)


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
