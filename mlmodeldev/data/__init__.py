"""Data for training: exact loaders, arrays cached once, tokens, images, versions.

``fetch``, ``Source``, ``FetchError`` and ``unpack`` of `mlmodeldev.fetch` are here, too. Nothing is
imported before it is used: a second start must not pay for an HTTP client.

Example::

    from mlmodeldev.data import Source, fetch, unpack
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.fetch import FetchError as FetchError
    from mlmodeldev.fetch import Source as Source
    from mlmodeldev.fetch import fetch as fetch
    from mlmodeldev.fetch import unpack as unpack

__all__ = ["FetchError", "Source", "fetch", "unpack"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import mlmodeldev.fetch

    return getattr(mlmodeldev.fetch, name)


def __dir__() -> list[str]:
    return sorted(__all__)
