"""See what the modules of a model take and give in validation, on parts of one batch.

Example::

    observer = Observer()
    validate(settings, observer, parts=lambda batch, size: [rows(batch, 0, size)])
    observer.batches[0]["encoder.layer.0"]    # what that module gave
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.testing.learning import build, first_batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlmodeldev.settings.schema import Settings

Outputs = dict[str, list["Tensor"]]
"""Tensors of floats that each module gave, in the order of its calls."""
Parts = Callable[[Any, int], list[Any]]
"""Takes a batch and how many of its examples to look at; returns the batches to run."""

MOST = 8
"""Examples of the batch that are looked at."""
STEP = "validation_step"


class Observer:
    """Notes inputs and outputs of each module, one dict for each batch.

    Attributes:
        batches: outputs by the name of the module, and of ``validation_step``.
        calls: each module with the arguments of its first call.
    """

    def __init__(self) -> None:
        self.batches: list[Outputs] = []
        self.calls: dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = {}
        self._in_batch = False

    def watch(self, model: nn.Module) -> list[Any]:
        """Put hooks on all modules; return what takes them off."""

        def hook(name: str) -> Callable[..., None]:
            def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
                if self._in_batch:
                    self.calls.setdefault(name, (module, args, kwargs))
                    self._note(name, output)

            return note

        return [
            module.register_forward_hook(hook(name or type(model).__name__), with_kwargs=True)
            for name, module in model.named_modules()
        ]

    def _note(self, name: str, output: Any) -> None:
        kept = [tensor.detach().clone() for tensor in tensors(output) if tensor.is_floating_point()]
        self.batches[-1].setdefault(name, []).extend(kept)

    def callback(self) -> Any:
        """Return what tells this object where a batch of the first loader begins and ends."""
        from pytorch_lightning import Callback

        observer = self

        class Marks(Callback):
            def on_validation_batch_start(
                self, trainer: Any, module: Any, batch: Any, number: int, loader: int = 0
            ) -> None:
                if loader == 0:
                    observer.batches.append({})
                    observer._in_batch = True

            def on_validation_batch_end(
                self, trainer: Any, module: Any, out: Any, batch: Any, number: int, loader: int = 0
            ) -> None:
                if loader == 0:
                    observer._note(STEP, out)
                observer._in_batch = False

        return Marks()


def validate(settings: Settings, observer: Observer, parts: Parts) -> nn.Module:
    """Run validation on parts of its first batch, observed; return the model.

    Raises:
        unittest.SkipTest: there is no validation, or its batch can't be divided.
    """
    from pytorch_lightning import LightningModule
    from pytorch_lightning.utilities.model_helpers import is_overridden

    from mlmodeldev.training.ranks import World
    from mlmodeldev.training.trainer import make_trainer

    data, model = build(settings)
    if not is_overridden(STEP, model, parent=LightningModule):
        raise unittest.SkipTest(f"the model has no {STEP}, so there is nothing to look at")
    own: Any = data.val_dataloader
    data.val_dataloader = lambda: _divided(own(), parts)  # type: ignore[method-assign]
    folder = Path(settings.artefacts.runs_dir) / settings.artefacts.sweep
    trainer = make_trainer(settings, World(), [], [observer.callback()], folder)
    trainer.limit_val_batches = 1.0
    handles = observer.watch(model)
    trainer.validate(model, datamodule=data, verbose=False)
    for handle in handles:
        handle.remove()
    model.trainer = None
    return model


def _divided(loaders: Any, parts: Parts) -> Any:
    """Return loaders of the same number and names that give parts of a first batch."""
    if isinstance(loaders, Mapping):
        return {name: _Divided(loader, parts) for name, loader in loaders.items()}
    if isinstance(loaders, list | tuple):
        return [_Divided(loader, parts) for loader in loaders]
    return _Divided(loaders, parts)


class _Divided:
    def __init__(self, loader: Any, parts: Parts) -> None:
        self.loader, self.parts = loader, parts

    def __iter__(self) -> Iterator[Any]:
        batch = first_batch(self.loader)
        size = min(_size(batch), MOST)
        if size < 2:
            raise unittest.SkipTest("a validation batch has one example, so it can't be divided")
        yield from self.parts(batch, size)


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested lists, tuples and mappings; not of packed sequences."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, list | tuple) and not isinstance(
        value, torch.nn.utils.rnn.PackedSequence
    ):
        for each in value:
            yield from tensors(each)


def _size(batch: Any) -> int:
    """Return the number of examples: the length of the first tensor that has one."""
    return next((each.shape[0] for each in tensors(batch) if each.dim()), 0)


def rows(batch: Any, first: int, end: int) -> Any:
    """Return a batch of some of a batch's examples; what has no entry for each stays."""
    return _rows(batch, _size(batch), slice(first, end))


def _rows(value: Any, size: int, part: slice) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value[part].clone() if value.dim() and value.shape[0] == size else value
    if isinstance(value, Mapping):
        changed = {name: _rows(each, size, part) for name, each in value.items()}
        return type(value)(changed) if type(value) is not dict else changed  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        if len(value) == size and not any(True for _ in tensors(value)):
            return value[part]  # texts, one for each example
        entries = [_rows(each, size, part) for each in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    return value
