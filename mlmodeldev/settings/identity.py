"""A trial's identity: a short hash of its canonical overrides, the same on every engine.

Example::

    identity({"optimizer.lr": 1e-4})                      # 'q5x2h7ab', say
    identity({"optimizer": {"lr": 0.0001}})               # the same
    identity(parse_overrides(["optimizer.lr=1e-4"]))      # the same
    identity({"optimizer.lr": 1e-4, "cluster.gpus": 2})   # the same: where, not what
    identity({"optimizer.lr": 1e-4, "training.seed": 1})  # another trial

Two spellings are one trial: another order, dots for nesting, ``1.0`` for ``1``, a tie ``${key}``
for the value that it stands for. Other names, types or a seed are another trial.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.renamed import names_of_identity

_DIGITS = "abcdefghijklmnopqrstuvwxyz234567"
# The first character is a letter, and neither i nor n: nothing can read as a number, not even
# as "infinity" or "nan".
_FIRST = "abcdefghjklmopqrstuvwxyz"


# Two digits at once, the lower one first.
_PAIRS = [_DIGITS[pair & 31] + _DIGITS[pair >> 5] for pair in range(1024)]


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
    named = names_of_identity(resolved)
    return digest(canonical_text({k: v for k, v in named.items() if not says_where(k)}))


def digest(text: str) -> str:
    """Return 8 characters of a-z and 2-7 made from the text; the first is a letter."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    number, first = divmod(number, len(_FIRST))
    low, high = number & 0xFFFFF, number >> 20 & 0x7FFF  # 4 digits and 3, of 5 bits each
    return (
        _FIRST[first]
        + _PAIRS[low & 1023]
        + _PAIRS[low >> 10]
        + _PAIRS[high & 1023]
        + _DIGITS[high >> 10]
    )


WHERE_NOT_WHAT = ("artefacts", "cluster", "hydra")
"""Top-level names that say where a trial runs, not what it is: no part of its identity."""

_REFERENCE = re.compile(r"(?<!\\)\$\{([A-Za-z_][\w./@-]*)\}")
_PLAIN_KEY = re.compile(r"[^.\s]+")


def flatten(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides with nested mappings spelled as dotted keys.

    A ``+`` or ``++`` before a key is dropped: it says how Hydra sets the key, not to what.
    An empty mapping, or one with keys that cannot be dotted, stays a value.

    Raises:
        UsageError: a key is no text, or two spellings set one key.
    """
    flat: dict[str, Any] = {}
    for key, value in overrides.items():
        if not isinstance(key, str):
            raise UsageError(f"override {key!r}: a key must be text such as 'optimizer.lr'")
        _put(flat, key.lstrip("+"), plain_value(value))
    return flat


def _put(flat: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(value, dict) and _can_be_dotted(value):
        for name, inner in value.items():
            _put(flat, f"{key}.{name}", inner)
        return
    if key in flat:
        raise UsageError(f"override {key!r} is set twice, nested and dotted: keep one of them")
    flat[key] = value


def _can_be_dotted(value: dict[Any, Any]) -> bool:
    return bool(value) and all(isinstance(k, str) and _PLAIN_KEY.fullmatch(k) for k in value)


def plain_value(value: Any) -> Any:
    """Return the value as plain Python: dict, list, str, int, float, bool or None.

    Tuples become lists; numpy scalars and OmegaConf containers become what they hold.

    Raises:
        UsageError: the value cannot be written down (an object, a date, a set).
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, Mapping):
        return {key: plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple) or type(value).__name__ == "ListConfig":
        return [plain_value(inner) for inner in value]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return plain_value(value.item())
    kind = type(value).__name__
    raise UsageError(f"override value {value!r} is a {kind}: use text, numbers, lists or mappings")


def resolve_ties(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides with ``${key}`` replaced by the value of ``key`` where it is set here.

    A text that is one reference takes the value with its type; inside a longer text the value is
    written as Python writes it, as OmegaConf does. References to other settings stay.

    Raises:
        UsageError: the references form a circle.
    """
    resolved: dict[str, Any] = {}
    for key in flat:
        _resolve(key, flat, resolved)
    return {key: resolved[key] for key in flat}


def _resolve(key: str, flat: Mapping[str, Any], done: dict[str, Any]) -> None:
    """Resolve a key and what it refers to; a chain may be longer than Python's stack."""
    path = dict.fromkeys([key])
    while path:
        current = next(reversed(path))
        waits_for = (n for n in _ordered_references(flat[current]) if n in flat and n not in done)
        following = next(waits_for, None)
        if following is None:
            done[current] = _replace(flat[current], flat, done.__getitem__)
            del path[current]
        elif following in path:
            keys = list(path)
            circle = " -> ".join([*keys[keys.index(following) :], following])
            raise UsageError(f"tied parameters form a circle: {circle}")
        else:
            path[following] = None


def _replace(value: Any, flat: Mapping[str, Any], value_of: Callable[[str], Any]) -> Any:
    if isinstance(value, list):
        return [_replace(inner, flat, value_of) for inner in value]
    if isinstance(value, dict):
        return {key: _replace(inner, flat, value_of) for key, inner in value.items()}
    if not isinstance(value, str) or "${" not in value:
        return value
    if match := _REFERENCE.fullmatch(value):
        return value_of(match[1]) if match[1] in flat else value
    return _REFERENCE.sub(lambda m: str(value_of(m[1])) if m[1] in flat else m[0], value)


def references(value: Any) -> set[str]:
    """Return the keys that a value refers to: ``{"a"}`` for ``"${a}"``."""
    return set(_ordered_references(value))


def _ordered_references(value: Any) -> dict[str, None]:
    if isinstance(value, str):
        return dict.fromkeys(_REFERENCE.findall(value))
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name: None for each in inner for name in _ordered_references(each)}


def says_where(key: str) -> bool:
    """True for keys such as ``artefacts.runs_dir``, ``cluster`` or ``hydra/launcher``."""
    return re.split(r"[./@]", key.lstrip("~+"), maxsplit=1)[0] in WHERE_NOT_WHAT


def canonical_text(value: Any) -> str:
    """Return the one spelling of a plain value: JSON, keys sorted, numbers in one form.

    Not-a-number and the infinities are ``NaN``, ``Infinity`` and ``-Infinity``; every
    not-a-number is the same.
    """
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"))


def _canonical(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    if isinstance(value, dict):
        return {_key_text(key): _canonical(inner) for key, inner in value.items()}
    return value


def _key_text(key: Any) -> str:
    # A key that is no text keeps its type in its spelling, so that {1: x} is not {"1": x}.
    return key if isinstance(key, str) else f"{type(key).__name__}:{key}"
