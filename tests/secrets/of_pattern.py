"""Random text that a regular expression matches, each letter drawn alike.

Hypothesis' own strategy prefers the simplest text: rows of zeros, which are nobody's key.
"""

from __future__ import annotations

import random
import re
import string
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

LETTERS = string.ascii_letters + string.digits
PRINTABLE = LETTERS + " -_.:/=+"
_CATEGORIES = {
    codes.CATEGORY_DIGIT: string.digits,
    codes.CATEGORY_WORD: LETTERS + "_",
    codes.CATEGORY_SPACE: " ",
}
_REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT)
_OF_NO_LENGTH = (codes.AT, codes.ASSERT, codes.ASSERT_NOT)
MORE, MANY = 4, 20
"""How often a part is repeated beyond the least, where there is a most and where there is none."""


def draw(pattern: re.Pattern[str], random: random.Random) -> str:
    """Return a text that the pattern matches from end to end, look-arounds not heeded."""
    groups: dict[int, str] = {}
    folds = bool(pattern.flags & re.IGNORECASE)
    text = "".join(_draw(node, random, groups) for node in _parser.parse(pattern.pattern))
    return "".join(random.choice((c.lower(), c)) for c in text) if folds else text


def _draw(node: tuple[Any, Any], random: random.Random, groups: dict[int, str]) -> str:
    code, value = node

    def all_of(inner: Any) -> str:
        return "".join(_draw(each, random, groups) for each in inner)

    if code in _REPEATS:
        least, most, inner = value
        longest = least + MANY if most is codes.MAXREPEAT else min(most, least + MORE)
        text = "".join(all_of(inner) for _ in range(random.randint(least, longest)))
    elif code is codes.SUBPATTERN:
        text = groups[value[0]] = all_of(value[3])
    elif code is codes.BRANCH:
        text = all_of(random.choice(value[1]))
    elif code is codes.GROUPREF:
        text = groups[value]
    elif code in _OF_NO_LENGTH:
        text = ""
    else:
        text = random.choice(_letters([node] if code in (codes.LITERAL, codes.ANY) else value))
    return text


def _letters(choices: list[tuple[Any, Any]]) -> list[str]:
    negated = choices[0][0] is codes.NEGATE
    letters: set[str] = set()
    for code, value in choices:
        if code is codes.LITERAL:
            letters.add(chr(value))
        elif code is codes.ANY:
            letters.add(".")  # most often a dot is meant
        elif code is codes.RANGE:
            letters |= {chr(each) for each in range(value[0], value[1] + 1)}
        elif code is codes.CATEGORY:
            letters |= set(_CATEGORIES[value])
    return sorted(set(PRINTABLE) - letters if negated else letters)
