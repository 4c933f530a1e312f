"""Getting data once, whole: sources, downloads, archives and the datasets that we know.

Example::

    from mlmodeldev.data import Source, fetch, unpack

    source = Source(urls=["https://host/cola.zip"], bytes=376971, sha256="f212fcd8…")
    archive = fetch(source, "data/cola")
    folder = unpack(archive, "data/cola/CoLA")

The module of ``unpack`` is called ``unpacking``: a submodule of a lazy name would hide it.
Nothing is imported before it is asked for: a second start must not pay for an HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.fetch.download import fetch as fetch
    from mlmodeldev.fetch.source import FetchError as FetchError
    from mlmodeldev.fetch.source import Source as Source
    from mlmodeldev.fetch.unpacking import unpack as unpack

_HOME = {
    "fetch": "mlmodeldev.fetch.download",
    "FetchError": "mlmodeldev.fetch.source",
    "Source": "mlmodeldev.fetch.source",
    "unpack": "mlmodeldev.fetch.unpacking",
}

__all__ = ["FetchError", "Source", "fetch", "unpack"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module at its first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
