"""A trial's identity: a short hash of its canonical overrides, the same on every engine.

Example::

    identity({"optimizer.lr": 1e-4})                      # 'q5x2h7ab', say
    identity({"optimizer": {"lr": 0.0001}})               # the same
    identity(parse_overrides(["optimizer.lr=1e-4"]))      # the same
    identity({"optimizer.lr": 1e-4, "cluster.gpus": 2})   # the same: where, not what
    identity({"optimizer.lr": 1e-4, "training.seed": 1})  # another trial

The rules of what is equal stand in `mlmodeldev.settings.canonical`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from mlmodeldev.settings.canonical import canonical_text, flatten, resolve_ties, says_where
from mlmodeldev.settings.overrides import parse_overrides, shell_text, to_overrides

__all__ = ["identity", "parse_overrides", "shell_text", "to_overrides"]

_DIGITS = "abcdefghijklmnopqrstuvwxyz234567"
# The first character is a letter, and neither i nor n: nothing can read as a number, not even
# as "infinity" or "nan".
_FIRST = "abcdefghjklmopqrstuvwxyz"


def identity(overrides: Mapping[str, Any]) -> str:
    """Return the identity of the trial with these overrides: 8 characters of a-z and 2-7.

    Order, nesting against dots, and the spelling of numbers are of no account; names, types and
    the seed are. Keys under ``artefacts``, ``cluster`` and ``hydra`` are left out. Two different
    trials share an identity with probability 10⁻¹² (39 bits), so 10⁴ trials collide with
    probability 6·10⁻⁵.

    Raises:
        UsageError: a key is set twice, a value cannot be written down, or ties form a circle.
    """
    resolved = resolve_ties(flatten(overrides))
    return digest(canonical_text({k: v for k, v in resolved.items() if not says_where(k)}))


def digest(text: str) -> str:
    """Return 8 characters of a-z and 2-7 made from the text; the first is a letter."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    number, first = divmod(number, len(_FIRST))
    rest = []
    for _ in range(7):
        number, digit = divmod(number, len(_DIGITS))
        rest.append(_DIGITS[digit])
    return _FIRST[first] + "".join(rest)
