"""Pretrained encoders by Hub name or folder, with one clear error where there is none.

Example::

    pretrained(AutoModel, "google/bert_uncased_L-2_H-128_A-2")
"""

from __future__ import annotations

from typing import Any

from mlmodeldev.errors import UsageError


def pretrained(kind: Any, name: str, **arguments: Any) -> Any:
    """Return ``kind.from_pretrained(name)``, from a folder, the Hub's cache or the Hub.

    Raises:
        UsageError: there is no such model, its files are damaged, or the Hub can't be reached and
            its cache lacks it.
    """
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(name, **arguments)
    except (OSError, ValueError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(
            f"{name!r} can't be loaded as {kind.__name__}: {reason} (give a folder with config.json"
            " or a Hub name; without a network it must be in the Hub's cache)"
        ) from None
