"""A trial of a sweep: its settings, its identity, its name. Made for millions at once.

Example::

    trial = Trial({"optimizer.lr": 0.003, "training.seed": 0}, Naming.of(["optimizer.lr"]))
    trial.id, trial.name, trial.overrides
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmodeldev.settings.identity import identity
from mlmodeldev.settings.many_identities import Identities


@dataclass(frozen=True)
class Naming:
    """How a sweep's trials are named: the swept keys, and a short label for each."""

    labels: dict[str, str]
    replicates: frozenset[str] = frozenset()
    identities: Identities = field(default_factory=Identities, repr=False, compare=False)
    """Of the sweep's trials, which have their keys in common."""
    _keys: dict[tuple[str, ...], tuple[str, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

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

    def shared(self, overrides: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the keys, as one object for all trials that set the same ones."""
        keys = tuple(overrides)
        return self._keys.setdefault(keys, keys)


class Trial:
    """One point of a sweep.

    Args:
        overrides: settings by dotted key, ties resolved; constants of the sweep file included.
        naming: how the sweep's trials are named.
    """

    __slots__ = ("_id", "_keys", "_values", "naming")

    def __init__(self, overrides: Mapping[str, Any], naming: Naming) -> None:
        self.naming = naming
        self._keys, self._values = naming.shared(overrides), tuple(overrides.values())
        self._id: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trial) and self.overrides == other.overrides

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Trial({self.overrides!r})"

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings by dotted key, ties resolved; constants of the sweep file included."""
        return dict(zip(self._keys, self._values, strict=True))

    @property
    def id(self) -> str:
        """The identity: `mlmodeldev.settings.identity.identity` of the overrides."""
        if self._id is None:
            self._id = self.naming.identities(self._keys, self._values)
        return self._id

    @property
    def name(self) -> str:
        """A readable name from the swept values only; the identity is what is unique."""
        return self.naming.name(self.overrides)

    @property
    def group(self) -> str:
        """The identity without the replicates' values: the same for all repeats of a point."""
        repeated = self.naming.replicates
        return identity({k: v for k, v in self.overrides.items() if k not in repeated})


def _labels(keys: list[str]) -> dict[str, str]:
    """Return for each key its shortest ending that no other key has."""
    endings = Counter(ending for key in keys for ending in _endings(key))
    return {
        key: next((ending for ending in _endings(key) if endings[ending] == 1), key) for key in keys
    }


def _endings(key: str) -> list[str]:
    """Return ``["lr", "optimizer.lr"]``."""
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]


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
