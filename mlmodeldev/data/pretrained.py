"""Pretrained models and tokenizers by Hub name or folder, with one clear error for none.

Example::

    pretrained(AutoModel, "google/bert_uncased_L-2_H-128_A-2")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlmodeldev.errors import UsageError


def pretrained(
    kind: Any, name: str, needs: Mapping[str, tuple[str, int]] | None = None, **arguments: Any
) -> Any:
    """Return ``kind.from_pretrained(name)``, from a folder, the Hub's cache or the Hub.

    Args:
        kind: class of transformers.
        name: folder or Hub name.
        needs: what the data asks of the model's configuration, such as
            ``{"vocab_size": ("at least", 4000)}`` or ``{"image_size": ("exactly", 8)}``.
        arguments: for ``from_pretrained``; code that lies beside the weights is not run unless
            ``trust_remote_code=True`` is among them.

    Raises:
        UsageError: there is no such model, its files are damaged, it does not fit the data, or the
            Hub can't be reached and its cache lacks it.
    """
    made = _load(kind, name, arguments)
    for key, (how, need) in (needs or {}).items():
        have = getattr(made.config, key, need)
        if have != need and not (how == "at least" and have > need):
            raise UsageError(
                f"{name!r} has {key}={have}: the data needs {how} {need}; choose another model"
                " or change the data"
            )
    return made


def _load(kind: Any, name: str, arguments: dict[str, Any]) -> Any:
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(name, **{"trust_remote_code": False, **arguments})
    except (OSError, ValueError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(
            f"{name!r} can't be loaded as {kind.__name__}: {reason} (give a folder with config.json"
            " or a Hub name; without a network it must be in the Hub's cache)"
        ) from None
