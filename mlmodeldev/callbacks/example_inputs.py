"""What a model's forward is called with: kept from a step, cut to a few rows, as tensors by name.

Example::

    kept = ExampleInputs()                       # a callback: sees the first batches
    call = kept.call_of(module, datamodule)      # a Call, also where forward ran in no step
    call.tensors                                 # {"image": (5, 1, 8, 8), "input_ids": (5, 9)}
    args, kwargs = call.with_tensors(call.rows(3).values())
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from mlmodeldev.data.randomness import global_states, restore_globals

ROWS = 5
"""Examples of a batch that are kept at most."""

Place = tuple[str, ...]


class Call:
    """The arguments of one forward, on the CPU.

    Args:
        module: whose forward names the arguments.
        args: by place.
        kwargs: by name.

    Attributes:
        tensors: all tensors among them by name, in order; the name is the last part of where a
            tensor lies (an argument's name, a mapping's key), or all parts where that is not
            enough.
        size: rows of the batch; 0: no tensor has any.
    """

    def __init__(
        self, module: LightningModule, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        names = _argument_names(module, len(args))
        whole = {**dict(zip(names, args, strict=True)), **kwargs}
        tensors = tensors_in(whole)
        self.size = next((len(tensor) for _, tensor in tensors if tensor.ndim), 0)
        self._by_place = len(args)
        self._arguments = mapped(whole, lambda path, tensor: self._few(tensor))
        self.tensors = named(tensors_in(self._arguments))
        self.batched = {n for n, t in self.tensors.items() if t.ndim and len(t) == self._kept}

    @property
    def _kept(self) -> int:
        return min(self.size, ROWS)

    def _few(self, tensor: Tensor) -> Tensor:
        is_batched = tensor.ndim and len(tensor) == self.size
        return (tensor[:ROWS] if is_batched else tensor).detach().cpu().clone()

    def rows(self, count: int) -> dict[str, Tensor]:
        """Return the tensors with so many rows; those that there are again where they are few."""
        chosen = torch.arange(count) % max(1, self._kept)
        return {n: t[chosen] if n in self.batched else t for n, t in self.tensors.items()}

    def with_tensors(self, tensors: Iterable[Tensor]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments by place and by name, with other tensors in place of their own."""
        given = iter(tensors)
        whole = mapped(self._arguments, lambda path, tensor: next(given))
        values = list(whole.values())
        by_name = dict(list(whole.items())[self._by_place :])
        return values[: self._by_place], by_name


class ExampleInputs(Callback):
    """Keeps what forward is given in the first validation batch, before that in the first one."""

    def __init__(self) -> None:
        self._call: Call | None = None
        self._batch: Any = None
        self._validated = False
        self._hook: Any = None

    def call_of(self, module: LightningModule, datamodule: Any) -> Call | None:
        """Return a call of forward; None: nothing tells how it is called.

        Where the steps have not called it, the model's ``example_input_array`` says, else the
        batch itself: as a whole, its entries by the arguments' names, or its first parts.
        """
        given = getattr(module, "example_input_array", None)
        if given is not None:
            args = given if isinstance(given, tuple) else (given,)
            return Call(module, (), args[0]) if _is_named(module, args) else Call(module, args, {})
        if self._call is not None:
            return self._call
        batch = _first_batch(datamodule) if self._batch is None else self._batch
        return None if batch is None else call_with(module, batch)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._batch is None:
            self._watch(pl_module, batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._release()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self._validated:  # a training step may give forward the labels, too
            self._validated, self._call = True, None
            self._watch(pl_module, batch)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._release()

    def _watch(self, module: LightningModule, batch: Any) -> None:
        self._batch = _small(batch)
        self._hook = module.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Strategies run a step as the module's forward, for a moment.
        is_own = getattr(module.forward, "__func__", None) is type(module).forward
        if is_own and self._call is None:
            self._call = Call(module, args, kwargs)

    def _release(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


def call_with(module: LightningModule, batch: Any) -> Call | None:
    """Return the call of forward with a batch that its signature suggests.

    A mapping is given by its entries where these are forward's arguments, of a sequence come its
    first parts, as many as forward needs.
    """
    named_ones = signature(module.forward).parameters.values()
    needed = [p.name for p in named_ones if p.default is Parameter.empty and p.kind in _ORDINARY]
    if isinstance(batch, Mapping) and needed and set(needed) <= set(batch):
        return Call(module, (), {name: batch[name] for name in needed})
    if isinstance(batch, list | tuple) and 1 <= len(needed) <= len(batch):
        return Call(module, tuple(batch[: len(needed)]), {})
    return Call(module, (batch,), {}) if len(needed) <= 1 else None


def has_own(module: LightningModule, name: str) -> bool:
    """Whether a model implements a method that the bases only name."""
    first = next((kind for kind in type(module).__mro__ if name in vars(kind)), None)
    return first is not None and first.__name__ not in _BASES


_BASES = ("LightningModule", "Module")
"""Classes that have all methods and implement none: torch's, and Lightning's by either name."""

_ORDINARY = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def _argument_names(module: LightningModule, count: int) -> list[str]:
    """Return names for so many arguments by place."""
    ordinary = [
        p.name for p in signature(module.forward).parameters.values() if p.kind in _ORDINARY
    ]
    return [*ordinary[:count], *(f"input_{number}" for number in range(len(ordinary), count))]


def _is_named(module: LightningModule, args: tuple[Any, ...]) -> bool:
    """Whether Lightning would give an example to forward by name: a mapping of its arguments."""
    names = set(signature(module.forward).parameters)
    return len(args) == 1 and isinstance(args[0], Mapping) and set(args[0]) <= names


def _small(batch: Any) -> Any:
    tensors = tensors_in(batch)
    size = next((len(tensor) for _, tensor in tensors if tensor.ndim), 0)

    def few(_: Place, tensor: Tensor) -> Tensor:
        is_batched = tensor.ndim and len(tensor) == size
        return (tensor[:ROWS] if is_batched else tensor).detach().cpu().clone()

    return mapped(batch, few)


def _first_batch(datamodule: Any) -> Any:
    """Return a batch of the validation data, or of training; None: there is none."""
    states = global_states()
    try:
        for name in ("val_dataloader", "train_dataloader"):
            with contextlib.suppress(Exception):  # no such loader, or it wants a Trainer
                loader = getattr(datamodule, name)()
                while isinstance(loader, list | tuple | Mapping):
                    loader = next(iter(loader.values() if isinstance(loader, Mapping) else loader))
                return _small(next(iter(loader)))
    finally:
        restore_globals(states)
    return None


# --- nested values


def mapped(value: Any, change: Callable[[Place, Tensor], Any], path: Place = ()) -> Any:
    """Return nested mappings, sequences and dataclasses with each tensor changed."""
    if isinstance(value, Tensor):
        return change(path, value)
    if isinstance(value, Mapping):
        new = {key: mapped(inner, change, (*path, str(key))) for key, inner in value.items()}
        return new if type(value) is dict else _with_entries(value, new)
    if isinstance(value, list | tuple):
        parts = [mapped(inner, change, (*path, str(n))) for n, inner in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        new = {name: mapped(inner, change, (*path, name)) for name, inner in fields.items()}
        return dataclasses.replace(value, **new)
    return value


def _with_entries(value: Mapping[Any, Any], entries: Mapping[Any, Any]) -> Any:
    made: Any = copy.copy(value)
    for key, entry in entries.items():
        made[key] = entry
    return made


def tensors_in(value: Any) -> list[tuple[Place, Tensor]]:
    """Return the tensors of a nested value in order, and where each lies."""
    tensors: list[tuple[Place, Tensor]] = []

    def note(path: Place, tensor: Tensor) -> Tensor:
        tensors.append((path, tensor))
        return tensor

    mapped(value, note)
    return tensors


def named(tensors: Sequence[tuple[Place, Tensor]]) -> dict[str, Tensor]:
    """Return tensors by the last part of their path, by all of it where two would be the same."""
    return dict(zip(_names([path for path, _ in tensors]), (t for _, t in tensors), strict=True))


def _names(paths: Sequence[Place]) -> Iterator[str]:
    last = [path[-1] if path else "" for path in paths]
    for path, name in zip(paths, last, strict=True):
        is_enough = last.count(name) == 1 and not name.isdigit()
        yield name if is_enough else ".".join(path)
