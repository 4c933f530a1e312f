"""Names of runs: what was asked beyond the defaults, and nothing else.

Example::

    run_name(settings)      # "lr=0.003 batch_size=32", or the trial's identity
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

_NOT_SHOWN = ("artefacts.", "cluster.", "hydra.", "logger.", "callbacks.")


def run_name(settings: Settings) -> str:
    """Return a name made of the overrides; ``default`` when there are none."""
    return short_name(settings.overrides) or "default"


def short_name(overrides: Mapping[str, Any]) -> str:
    """Return ``lr=0.003 width=64``: the last part of each key, the whole key where ambiguous."""
    shown = {
        name: value
        for name, value in overrides.items()
        if not name.startswith(_NOT_SHOWN) and name != "logger"
    }
    leaves = [name.rpartition(".")[2] for name in shown]
    return " ".join(
        f"{leaf if leaves.count(leaf) == 1 else name}={value}"
        for leaf, (name, value) in zip(leaves, shown.items(), strict=True)
    )
