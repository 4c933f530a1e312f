"""Settings: what a trial may be told, checked before anything heavy is imported.

Example::

    from mlmodeldev.settings import validate
    settings = validate(container)          # a plain nested dict, as Hydra composes it
    settings.optimizer.lr

Names are imported on first use: identities and overrides need no pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.settings.validation import validate

__all__ = ["Settings", "validate"]


def __getattr__(name: str) -> Any:
    if name == "Settings":
        from mlmodeldev.settings.schema import Settings

        return Settings
    if name == "validate":
        from mlmodeldev.settings.validation import validate

        return validate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
