"""Identities of very many trials that set the same keys, a few microseconds each.

Example::

    identities = Identities()
    identities(("optimizer.lr", "training.seed"), (0.1, 0))     # identity({...}) of the same

What does not depend on a trial's values is worked out once: the names, their order, their
spelling. The result is `mlmodeldev.settings.identity.identity` of the same overrides, which also
does whatever is not plain (ties, mappings, lists).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlmodeldev.settings.identity import digest, identity, says_where
from mlmodeldev.settings.renamed import NAMED_BY, names_of_identity

_Layout = list[tuple[str, int]]
"""The beginning of each entry's text, and the place of its value, in the text's order.

An empty beginning stands for a key that is not plain."""


class Identities:
    """Work out identities; keeps what trials of the same keys have in common."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[Any, ...], _Layout] = {}
        self._named_by: dict[tuple[str, ...], list[int]] = {}
        self._latest: tuple[tuple[str, ...], _Layout] = ((), [])
        # by type, for 1 and True are one key of a dictionary
        self._spelled: dict[type, dict[Any, str]] = {kind: {} for kind in _PLAIN}

    def __call__(self, keys: tuple[str, ...], values: Sequence[Any]) -> str:
        """Return the identity of the trial with these overrides.

        Args:
            keys: dotted, each once; trials of the same keys share the tuple.
            values: one for each key.

        Raises:
            UsageError: as `identity`.
        """
        parts = []
        for begin, place in self._layout(keys, values):
            text = self._text(values[place]) if begin else None
            if text is None:
                return identity(dict(zip(keys, values, strict=True)))
            parts.append(begin + text)
        return digest("{" + ",".join(parts) + "}")

    def _layout(self, keys: tuple[str, ...], values: Sequence[Any]) -> _Layout:
        latest, layout = self._latest
        return layout if latest is keys else self._look_up(keys, values)

    def _look_up(self, keys: tuple[str, ...], values: Sequence[Any]) -> _Layout:
        named_by = self._named_by.get(keys)
        if named_by is None:
            places = [keys.index(name) for name in NAMED_BY if name in keys]
            named_by = self._named_by[keys] = places
        if not named_by:
            layout = self._layouts.get(keys)
            if layout is None:
                layout = self._layouts[keys] = _made(keys, values)
            self._latest = (keys, layout)
            return layout
        chosen = [values[place] for place in named_by]
        if not all(isinstance(value, str) or value is None for value in chosen):
            return _made(keys, values)
        kind = (keys, *chosen)
        layout = self._layouts.get(kind)
        if layout is None:
            layout = self._layouts[kind] = _made(keys, values)
        return layout

    def _text(self, value: Any) -> str | None:
        """Return a value as canonical JSON; None if it is not plain."""
        spelled = self._spelled.get(type(value))
        if spelled is None:
            return None
        text = spelled.get(value)
        if text is None:
            text = _spell(value)
            if text is not None and len(spelled) < _MAX_SPELLED:
                spelled[value] = text
        return text


_PLAIN = (int, float, str, bool, type(None))
_MAX_SPELLED = 100_000


def _spell(value: Any) -> str | None:
    if isinstance(value, float):
        if value.is_integer():
            return int.__repr__(int(value))
        return float.__repr__(value) if value - value == 0 else None
    return None if isinstance(value, str) and "${" in value else json.dumps(value)


def _made(keys: tuple[str, ...], values: Sequence[Any]) -> _Layout:
    """Return the layout of these keys."""
    if any(key.startswith("+") for key in keys):
        return [("", 0)]
    renamed = names_of_identity(dict(zip(keys, values, strict=True)))
    # names_of_identity keeps the order of the keys
    names = [(name, place) for place, name in enumerate(renamed) if not says_where(name)]
    return [(f"{json.dumps(name)}:", place) for name, place in sorted(names)]
