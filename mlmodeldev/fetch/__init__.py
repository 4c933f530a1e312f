"""Files from anywhere: downloaded once, whole, verified, unpacked; a library of its own.

Example::

    from mlmodeldev.fetch import Source, fetch, unpack

    source = Source(urls=["https://host/cola.zip"], bytes=376971, sha256="f212fcd8…")
    archive = fetch(source, "data/cola")
    folder = unpack(archive, "data/cola/CoLA")

From the inside out: `source` what to fetch, `transport` one request, `parallel` several at once,
`partial` the unfinished file, `attempts` retries and mirrors, `verify` the proof that a file is
whole, `download` the whole way for one process among many (`lock`, `progress`); `archive` and
`unpacking`; `manifest` datasets of several files. The module of ``unpack`` is called ``unpacking``:
a submodule of a lazy name would hide it. Nothing is imported before it is used: a second start must
not pay for an HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.fetch.download import fetch as fetch
    from mlmodeldev.fetch.source import FetchError as FetchError
    from mlmodeldev.fetch.source import Source as Source
    from mlmodeldev.fetch.unpacking import unpack as unpack

_MODULES = {"fetch": "download", "FetchError": "source", "Source": "source", "unpack": "unpacking"}

__all__ = ["FetchError", "Source", "fetch", "unpack"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
