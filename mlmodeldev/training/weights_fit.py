"""Which of some weights fit a model: by name and shape, under another prefix where that fits more.

A LightningModule holds what it trains under a name of its own (``net.``), a file from elsewhere
under another (``bert.``), or none. One prefix is taken off, another put on, where more fits so.

Example::

    fit = fit_weights(module.state_dict(), weights)
    module.load_state_dict(fit.weights, strict=False)
    fit.missing, fit.unexpected, fit.wrong_shape
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

_DEPTH = 2
"""Parts of a name that a prefix has at most."""


@dataclass(frozen=True)
class WeightsFit:
    """What fits and what does not.

    Attributes:
        weights: those that fit, by the model's names.
        missing: names of the model's that got none.
        unexpected: names of the weights' that the model lacks.
        wrong_shape: by the model's name, the given shape and the model's.
        prefix: what was taken off the given names, and what was put on instead.
    """

    weights: dict[str, Tensor]
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    prefix: tuple[str, str] = ("", "")

    @property
    def is_whole(self) -> bool:
        """Whether each weight has its place, and the model lacks none."""
        return not (self.missing or self.unexpected or self.wrong_shape)


def fit_weights(state: Mapping[str, Any], given: Mapping[str, Tensor]) -> WeightsFit:
    """Return what of the given weights fits a model.

    Args:
        state: the model's ``state_dict``.
        given: weights by their names.
    """
    own = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    prefix = _best_prefix(own, given)
    named = {_renamed(name, prefix): name for name in given if name.startswith(prefix[0])}
    fits = {new: given[old] for new, old in named.items() if _fits(own.get(new), given[old])}
    other = {new: old for new, old in named.items() if new in own and new not in fits}
    placed = {named[new] for new in (*fits, *other)}
    memory = {_memory(own[name]) for name in fits}
    left = [name for name in own if name not in fits and name not in other]
    return WeightsFit(
        weights=fits,
        # a tied weight is there under its other name
        missing=[name for name in left if _memory(own[name]) not in memory],
        unexpected=[name for name in given if name not in placed],
        wrong_shape={n: (tuple(given[old].shape), tuple(own[n].shape)) for n, old in other.items()},
        prefix=prefix,
    )


def _best_prefix(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return the prefixes under which most fits; none where they win nothing, or fit too little.

    Of what has the prefix half must fit: a bias or two of the right size are no likeness.
    """
    best, most = ("", ""), _count(own, given, ("", ""))
    if most == min(len(own), len(given)):
        return best
    for old in _prefixes(given):
        below = sum(name.startswith(old) for name in given)
        for new in _prefixes(own):
            count = _count(own, given, (old, new))
            if count > most and 2 * count >= below:
                best, most = (old, new), count
    return best


def _prefixes(names: Collection[str]) -> list[str]:
    """Return what names can begin with, the shortest first."""
    heads = {""}
    for name in names:
        parts = name.split(".")[:-1]
        heads |= {"".join(f"{part}." for part in parts[:depth]) for depth in range(1, _DEPTH + 1)}
    return sorted(heads, key=lambda head: (head.count("."), head))


def _count(own: Mapping[str, Tensor], given: Mapping[str, Tensor], prefix: tuple[str, str]) -> int:
    return sum(
        _fits(own.get(_renamed(name, prefix)), value)
        for name, value in given.items()
        if name.startswith(prefix[0])
    )


def _renamed(name: str, prefix: tuple[str, str]) -> str:
    return prefix[1] + name[len(prefix[0]) :]


def _fits(own: Tensor | None, given: Tensor) -> bool:
    """Whether a weight can be put there; one without a shape yet takes any."""
    return own is not None and (is_lazy(own) or own.shape == given.shape)


def _memory(value: Tensor) -> tuple[int, ...]:
    if is_lazy(value) or not value.numel():
        return (id(value),)
    return (value.untyped_storage().data_ptr(), value.storage_offset(), *value.shape)
