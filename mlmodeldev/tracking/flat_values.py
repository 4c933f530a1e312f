"""Settings and metadata as trackers show them: by dotted names, as text, keys masked.

Example::

    dict(flat(settings_to_show(settings)))["optimizer.lr"]      # 0.002
    shown("optimizer.lr", 0.002, 6000)                          # '0.002'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlmodeldev.secrets import mask
from mlmodeldev.tracking.metadata import at_most

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

_KEPT_APART = {"overrides", "artefacts", "logger"}


def settings_to_show(settings: Settings) -> dict[str, Any]:
    """Return the settings that say what a trial is, not where it lies and who is told of it."""
    return settings.model_dump(exclude=_KEPT_APART)


def flat(values: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings, each by its dotted name."""
    for name, value in values.items():
        key = f"{front}.{name}" if front else str(name)
        if isinstance(value, Mapping) and value:
            yield from flat(value, key)
        else:
            yield key, value


def shown(name: str, value: Any, longest: int) -> str:
    """Return a value as text of at most so many characters, keys masked.

    The name goes along to the masking: of a commit's digits only it says that they are no key.
    """
    return at_most(mask(f"{name}={value}")[len(mask(name)) + 1 :], longest)
