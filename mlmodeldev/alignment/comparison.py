"""What is compared with what: one entry under `compare` in the settings of the callback.

towers: {a: "image.layers.*", b: "text.encoder.layer.*"}       # two towers of the live model
drift:  {a: ["image.layers.*", "text.encoder.layer.*"], against: start}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError, nearest

OWN_PAST = ("start", "previous")
WORDS = ("self", *OWN_PAST)


@dataclass(frozen=True)
class Comparison:
    """Layers `a` of the live model (rows) with layers `b` of `against` (columns).

    Attributes:
        a: pattern or patterns of layers (see `capture`).
        b: likewise, in `against`; default: the same patterns as `a`.
        against: ``self`` (default), ``start`` (the model's own first weights), ``previous`` (its
            weights at the measurement before), a ``.ckpt`` or ``.safetensors`` of the same model,
            or a local folder or Hub name that transformers can load.
        inputs: for a transformers model: its argument names and the batch entries they take,
            e.g. ``{pixel_values: image}``; default: entries of the same name.

    Raises `UsageError` for empty patterns and misspelt words.
    """

    a: str | Sequence[str]
    b: str | Sequence[str] | None = None
    against: str = "self"
    inputs: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for side, given in (("a", self.a), ("b", self.b)):
            if given is not None and not _patterns(given):
                raise UsageError(f"comparison: {side}={given!r} must name layers by patterns")
        is_word = self.against in WORDS
        hint = nearest(str(self.against), WORDS)
        if not is_word and hint and not Path(self.against).exists() and "/" not in self.against:
            raise UsageError(f"comparison: against={self.against!r} is unknown{hint}")

    @property
    def patterns_a(self) -> list[str]:
        """Patterns of the rows, as a list."""
        return _patterns(self.a)

    @property
    def patterns_b(self) -> list[str]:
        """Patterns of the columns, as a list."""
        return self.patterns_a if self.b is None else _patterns(self.b)

    @property
    def has_diagonal(self) -> bool:
        """Whether entry (i, i) says something: not where a model's layer meets itself."""
        return self.against != "self" or self.patterns_a != self.patterns_b


def read_comparisons(
    compare: Mapping[str, Comparison | Mapping[str, Any]],
) -> dict[str, Comparison]:
    """Return the comparisons by name, from objects or plain mappings.

    Raises `UsageError` for none at all, unknown keys, and names that make no file name.
    """
    if not compare:
        raise UsageError("cka.compare is empty: name at least one comparison")
    return {name: _read(name, value) for name, value in compare.items()}


def _read(name: str, value: Comparison | Mapping[str, Any]) -> Comparison:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(f"cka.compare: the name {name!r} may hold letters, digits, '_' and '-'")
    if isinstance(value, Comparison):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(f"cka.compare.{name}={value!r} must have entries such as a and against")
    allowed = [field.name for field in fields(Comparison)]
    for key in value:
        if key not in allowed:
            raise UsageError(
                f"cka.compare.{name}: unknown key {key!r}; allowed: {', '.join(allowed)}"
                + nearest(str(key), allowed)
            )
    if "a" not in value:
        raise UsageError(f"cka.compare.{name} lacks the key 'a', the layers to compare")
    return Comparison(**value)


def _patterns(given: str | Sequence[str]) -> list[str]:
    patterns = [given] if isinstance(given, str) else list(given)
    return [] if not all(isinstance(p, str) and p for p in patterns) else patterns
