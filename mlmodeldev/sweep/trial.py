"""A trial: one point of a sweep, with its identity and its name.

Example::

    trial = next(load("sweep/config.yaml").trials())
    trial.overrides     # {"optimizer.lr": 0.001, "training.seed": 0}
    trial.id            # 'kq3v7x2d'
    trial.name          # 'lr=0.001,seed=0'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlmodeldev.settings.identity import identity


@dataclass(frozen=True)
class Naming:
    """How a sweep's trials are named: the swept keys, and a short label for each."""

    labels: dict[str, str]
    replicates: frozenset[str] = frozenset()

    @classmethod
    def of(cls, swept: Iterable[str], replicates: Iterable[str] = ()) -> Naming:
        """Label each swept key by its last part, or by more of it where that is ambiguous."""
        return cls(_labels(list(swept)), frozenset(replicates))

    def name(self, overrides: Mapping[str, Any]) -> str:
        """Return ``lr=0.003,width=64``: the swept keys that are set, in the file's order."""
        parts = (
            f"{label}={_show(overrides[k])}" for k, label in self.labels.items() if k in overrides
        )
        return ",".join(parts) or "trial"


@dataclass(frozen=True)
class Trial:
    """One point of a sweep."""

    overrides: dict[str, Any]
    """Settings by dotted key, ties resolved; constants of the sweep file included."""
    naming: Naming = field(repr=False, compare=False)

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def id(self) -> str:
        """The identity: `mlmodeldev.settings.identity.identity` of the overrides."""
        return identity(self.overrides)

    @cached_property
    def name(self) -> str:
        """A readable name from the swept values only; the identity is what is unique."""
        return self.naming.name(self.overrides)

    @cached_property
    def group(self) -> str:
        """The identity without the replicates' values: the same for all repeats of a point."""
        repeated = self.naming.replicates
        return identity({k: v for k, v in self.overrides.items() if k not in repeated})


def _labels(keys: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key in keys:
        parts = key.split(".")
        for start in range(len(parts) - 1, -1, -1):
            label = ".".join(parts[start:])
            if sum(other == label or other.endswith(f".{label}") for other in keys) == 1:
                break
        labels[key] = label
    return labels


def _show(value: Any) -> str:
    if isinstance(value, float):
        exact = repr(value)
        return exact if len(exact) <= 8 else f"{value:.4g}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_show(v) for v in value) + "]"
    text = str(value)
    return text if len(text) <= 32 else text[:29] + "..."
