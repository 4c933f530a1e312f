"""Text as it was before it was put into JSON, an address or colours, with where each letter stands.

Example::

    text, places = without_escapes("t=a%3Ab")       # "t=a:b", [0, 1, 2, 3, 6, 7]
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]"
    r"|(?<!\\)\\+(?:u00(?P<u>[0-9a-fA-F]{2})|x(?P<x>[0-9a-fA-F]{2})|[nrt]|(?P<sign>[\"'/`]))"
    r"|%(?P<percent>[0-9A-Fa-f]{2})"
)


def without_escapes(line: str) -> tuple[str, list[int]] | None:
    """Return a line without escapes, and the place of each letter in it; None where it has none.

    A change of colour and an escaped line end are a space.
    """
    if not ("\x1b" in line or "\\" in line or "%" in line):
        return None
    letters: list[str] = []
    places: list[int] = []
    at = 0
    for match in _ESCAPE.finditer(line):
        letters += line[at : match.start()]
        places += range(at, match.start())
        letters.append(_meant(match))
        places.append(match.start())
        at = match.end()
    if not at:
        return None
    letters += line[at:]
    places += range(at, len(line) + 1)
    return "".join(letters), places


def _meant(match: re.Match[str]) -> str:
    code = match["u"] or match["x"] or match["percent"]
    if code:
        letter = chr(int(code, 16))
        return letter if letter.isprintable() else " "
    return match["sign"] or " "
