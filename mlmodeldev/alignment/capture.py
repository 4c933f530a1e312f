"""Read layers of any module while it runs, by forward hooks that leave no trace.

    names = match_layers(model, ["layers.*", "re:head[0-9]+"])
    with Capture(model, names, pooling={"layers.*": "mean"}) as capture:
        model(batch)
        features = capture.take()          # {"layers.0": (batch, dim), …}

Patterns: ``*`` and ``?`` stay within one part of a dotted name, ``**`` crosses dots, ``re:`` starts
a regular expression for the whole name. ``name#1`` is the second call of a module that runs twice
in a forward (default: the first). Names are those of `named_modules()`, in that order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from mlmodeldev.alignment.hsic import as_rows
from mlmodeldev.errors import UsageError, nearest

Reduced = TypeVar("Reduced")
Seen = tuple[dict[str, Reduced], dict[str, str]]
"""What layers gave, and why the others gave nothing, both by layer."""
POOLINGS = ("flatten", "mean", "cls", "none")


def match_layers(module: nn.Module, patterns: str | Sequence[str]) -> list[str]:
    """Return the names of the layers of `module` that match, each once, pattern by pattern.

    Raises `UsageError` for a pattern that matches nothing, with the nearest names.
    """
    names = [name for name, _ in module.named_modules() if name]
    layers: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        base, call = _split_call(pattern)
        expression = _expression(base)
        matches = [name for name in names if expression.fullmatch(name)]
        if not matches:
            raise UsageError(_no_match(pattern, base, names, type(module).__name__))
        layers.update(dict.fromkeys(name + (f"#{call}" if call else "") for name in matches))
    return list(layers)


class Capture(Generic[Reduced]):
    """Hooks on `layers` of `module` for as long as the context lasts, even if it ends in an error.

    Args:
        module: the model; its outputs, gradients and modes stay as they are.
        layers: exact names, from `match_layers`.
        reduce: called at once with the pooled output (batch, …) of a layer, without gradient; what
            it returns is kept. Default: the detached output itself (a view, not a copy: a later
            in-place operation of the model changes it).
        pooling: one of `POOLINGS` for all layers (default ``"flatten"``), or by pattern; layers
            that no pattern names are flattened. ``flatten`` gives (batch, everything), columns in
            memory order; ``mean`` averages tokens (batch, tokens, dim) or positions (batch,
            channels, …); ``cls`` takes the first token; ``none`` leaves the output as it is.
        batch_dim: where the samples lie (default 0), for all layers or by pattern.

    Raises `UsageError` for unknown layers and poolings; see `take` for outputs without features.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        reduce: Callable[[Tensor], Reduced] | None = None,
        pooling: str | Mapping[str, str] = "flatten",
        batch_dim: int | Mapping[str, int] = 0,
    ) -> None:
        self._modules = dict(module.named_modules())
        self._reduce: Callable[[Tensor], Any] = reduce or (lambda features: features)
        self.layers = list(layers)
        self._wanted: dict[str, dict[int, str]] = {}
        for layer in layers:
            base, call = _split_call(layer)
            if base not in self._modules:
                raise UsageError(_no_match(layer, base, list(self._modules), type(module).__name__))
            self._wanted.setdefault(base, {})[call or 0] = layer
        self._pooling = {name: by_pattern(pooling, name, "flatten") for name in self._wanted}
        self._batch_dim = {name: by_pattern(batch_dim, name, 0) for name in self._wanted}
        check_poolings(self._pooling.values())
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._calls: dict[str, int] = {}
        self._kept: dict[str, Reduced] = {}
        self._unusable: dict[str, str] = {}

    def __enter__(self) -> Capture[Reduced]:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Put the hooks on; a second call does nothing."""
        if not self._handles:
            for name in self._wanted:
                hook = self._hook(name)
                self._handles.append(self._modules[name].register_forward_hook(hook))

    def close(self) -> None:
        """Take the hooks off and forget what was captured; may be called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.clear()

    def clear(self) -> None:
        """Forget the last forward."""
        self._calls.clear()
        self._kept.clear()
        self._unusable.clear()

    def take(self) -> dict[str, Reduced]:
        """Return what the forward since the last `take` gave, in the order of `layers`.

        Raises `UsageError` for a layer that did not run, or whose output is no feature.
        """
        kept, reasons = self.take_usable()
        for name, reason in reasons.items():
            raise UsageError(f"layer {name!r} {reason}")
        return kept

    def take_usable(self) -> Seen[Reduced]:
        """Return what the layers gave, and of those that gave no features why, by name."""
        kept = {name: self._kept[name] for name in self.layers if name in self._kept}
        reasons = {
            name: self._unusable.get(name) or self._not_run(name)
            for name in self.layers
            if name not in kept
        }
        self.clear()
        return kept, reasons

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            call = self._calls.get(name, 0)
            self._calls[name] = call + 1
            layer = self._wanted[name].get(call)
            if layer is not None:
                self._keep(layer, name, output)

        return hook

    def _keep(self, layer: str, name: str, output: Any) -> None:
        try:
            features = first_tensor(output).detach()
            dim, how = self._batch_dim[name], self._pooling[name]
            features = _as_strided(features, how)
            if dim and features.ndim <= dim:
                raise _NoFeatures(f"gives {tuple(features.shape)}, without a dimension {dim}")
            features = pool(features.movedim(dim, 0) if dim else features, how)
        except _NoFeatures as error:
            # No error yet: the model itself is right, and a pattern may match what can't be read.
            self._unusable[layer] = str(error)
            return
        with torch.no_grad():
            self._kept[layer] = self._reduce(features)

    def _not_run(self, layer: str) -> str:
        base, call = _split_call(layer)
        calls = self._calls.get(base, 0)
        if calls:
            return f"ran {calls} times in this forward: there is no call {call}"
        ran = [name for name in self._wanted if self._calls.get(name)]
        return f"did not run in this forward{nearest(base, ran)}"


class _NoFeatures(Exception):
    """An output that can't be compared; says why."""


def first_tensor(output: Any) -> Tensor:
    """Return the output itself, or the first of features in a tuple, list, mapping or dataclass.

    Features are a tensor of real numbers with a batch dimension: a model that was given labels
    puts its loss first.
    """
    if isinstance(output, Tensor):
        _check_features(output)
        return output
    parts = [part for part in _parts(output) if isinstance(part, Tensor)]
    if not parts:
        raise _NoFeatures(f"gives {type(output).__name__} without a tensor at the top")
    features = [part for part in parts if part.ndim and part.is_floating_point()]
    if not features:
        _check_features(parts[0])
    return features[0]


def _parts(output: Any) -> Iterable[Any]:
    if isinstance(output, Mapping):
        return output.values()
    if is_dataclass(output) and not isinstance(output, type):
        return [getattr(output, field.name) for field in fields(output)]
    if isinstance(output, str) or not hasattr(output, "__iter__"):
        raise _NoFeatures(f"gives {type(output).__name__}, not a tensor")
    return list(output)


def _check_features(tensor: Tensor) -> None:
    if not tensor.ndim:
        raise _NoFeatures("gives a single number")
    if not tensor.is_floating_point():
        raise _NoFeatures(f"gives {str(tensor.dtype).removeprefix('torch.')}, not real features")


def _as_strided(features: Tensor, how: str) -> Tensor:
    """Return a sparse tensor in full, and examples of different lengths averaged over tokens."""
    if features.is_nested:
        parts = features.unbind()
        if how != "mean" or any(part.ndim != 2 for part in parts):
            raise _NoFeatures(
                "gives a nested tensor, which has features for CKA only as (tokens, dim) an "
                "example and with pooling 'mean'"
            )
        return torch.stack([pool(part.unsqueeze(0), how)[0] for part in parts])
    return features if features.layout == torch.strided else features.to_dense()


def pool(features: Tensor, how: str) -> Tensor:
    """Pool features (batch, …); see `Capture`. Two dimensions or fewer stay as they are."""
    if how == "none" or features.ndim <= 2:
        return features
    if how == "flatten":
        return as_rows(features)
    # Sums over positions in half precision would lose what the float32 Gram keeps.
    wide = torch.promote_types(features.dtype, torch.float32)
    if features.ndim == 3:
        return features[:, 0] if how == "cls" else features.mean(1, dtype=wide)
    if how == "cls":
        shape = tuple(features.shape)
        raise _NoFeatures(f"gives {shape}, but pooling 'cls' needs (batch, tokens, dim)")
    return features.flatten(2).mean(2, dtype=wide)


def check_poolings(values: Any) -> None:
    """Raise `UsageError` if one of `values` is not a pooling."""
    for value in values:
        if value not in POOLINGS:
            hint = nearest(str(value), POOLINGS)
            raise UsageError(f"pooling={value!r} is not one of {', '.join(POOLINGS)}{hint}")


Setting = TypeVar("Setting")


def by_pattern(setting: Setting | Mapping[str, Setting], name: str, default: Setting) -> Setting:
    """Return the setting for a layer: of the first pattern that matches, or the one for all."""
    if not isinstance(setting, Mapping):
        return setting
    for pattern, value in setting.items():
        if _expression(pattern).fullmatch(name):
            return value
    return default


def _split_call(pattern: str) -> tuple[str, int | None]:
    base, mark, call = pattern.rpartition("#")
    if not mark or pattern.startswith("re:"):
        return pattern, None
    if not call.isdigit():
        raise UsageError(f"layer {pattern!r}: after '#' comes the number of the call, from 0")
    return base, int(call)


def _expression(pattern: str) -> re.Pattern[str]:
    if pattern.startswith("re:"):
        try:
            return re.compile(pattern[3:])
        except re.error as error:
            raise UsageError(
                f"layer pattern {pattern!r} is no regular expression: {error}"
            ) from None
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    wild = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))


def _no_match(pattern: str, base: str, names: Sequence[str], model: str) -> str:
    close = [hint for hint in (nearest(base, names),) if hint]
    if close:
        return f"no layer of {model} matches {pattern!r}{close[0]}"
    tops = [name for name in names if name and "." not in name]
    return f"no layer of {model} matches {pattern!r}; at the top are: {', '.join(tops)}"
