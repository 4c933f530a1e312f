"""Valid input made odd: bytes, lines and trees of values with a few random changes."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WORDS = (
    *("", " ", "a", "null", "None", "true", "nan", "-inf", "1e999", "0", "-1", "1.5", "9" * 5000),
    *("é", "\U0001f600", "\u2028", "\x85", "\x1b[31m", "\0", "\n", "a\nb", "\r\n", "\t", "\\", "'"),
    *(
        '"',
        "`id`",
        "$(id)",
        "${a}",
        "../../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "~",
        "%s",
        "[red]",
    ),
    *("{0}", "[/]", "-rf", "x" * 300, "\u0663", "²", "١٢", "１２", "\ud800"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e308, 5e-324),
    *(float("inf"), float("-inf"), float("nan"), [], {}, [[]], [None], {"": None}, {"a": 1}),
    *([1, "a", None], {"a": {"b": [1]}}, ["x"] * 3, [1.0, 2], [[1, 2], [3]], [{"a": 1}]),
    *WORDS,
)


def spoiled_bytes(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return the bytes with one to four changes: bits, numbers, pieces gone, doubled or moved."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        size = len(out)
        at = rng.randrange(size + 1)
        if rng.random() < 0.4:  # the ends hold what a format says of itself
            at = min(size, rng.randrange(64)) if rng.random() < 0.5 else max(0, size - at % 64)
        kind = rng.randrange(8)
        if kind == 0 and at < size:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < size:
            out[at] = rng.randrange(256)
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) % 256**width
            order = "little" if rng.random() < 0.5 else "big"
            out[at : at + width] = number.to_bytes(width, order)
        elif kind == 3:
            del out[at : at + rng.choice((1, 2, 16, 512, size))]
        elif kind == 4:
            piece = bytes(out[at : at + rng.choice((1, 4, 64, 512))])
            out[at:at] = piece * rng.choice((1, 2, 30))
        elif kind == 5:
            out[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif kind == 6 and others:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            out[at : at + 256] = other[begin : begin + 256]
        else:
            out = out[:at]
    return bytes(out)


def spoiled_text(rng: Random, text: str, tokens: Sequence[str] = WORDS) -> str:
    """Return the text with one to four changes to its lines and words."""
    for _ in range(rng.randint(1, 4)):
        lines = text.split("\n")
        at, kind = rng.randrange(len(lines)), rng.randrange(8)
        line = lines[at]
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(rng.randrange(len(lines)), line)
        elif kind == 2:
            lines[at] = " " * rng.randint(0, 4) + line.lstrip()
        elif kind == 3:
            head, mark, _ = line.partition(rng.choice(":=|,"))
            lines[at] = f"{head}{mark}{rng.choice(tokens)}"
        elif kind == 4:
            words = line.split(" ")
            words[rng.randrange(len(words))] = rng.choice(tokens)
            lines[at] = " ".join(words)
        elif kind == 5:
            cut = rng.randrange(len(line) + 1)
            lines[at] = line[:cut] + rng.choice(tokens) + line[cut + rng.randint(0, 2) :]
        elif kind == 6:
            cut = rng.randrange(len(line) + 1)
            lines = [*lines[:at], line[:cut]]
        else:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], line
        text = "\n".join(lines)
    return text


def spoiled_tree(rng: Random, tree: Any, values: Sequence[Any] = ODD_VALUES, most: int = 3) -> Any:
    """Return a copy of lists and mappings in which a few values are others, gone, or new."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, most)):
        if not isinstance(tree, dict | list) or not tree or rng.random() < 0.03:
            tree = copy.deepcopy(rng.choice(values))
            continue
        inside, key = tree, _place(rng, tree)
        while isinstance(inside[key], dict | list) and inside[key] and rng.random() < 0.75:
            inside = inside[key]
            key = _place(rng, inside)
        kind = rng.randrange(10)
        if kind == 0:
            del inside[key]
        elif kind == 1 and isinstance(inside, dict):
            inside[rng.choice(WORDS)] = copy.deepcopy(rng.choice(values))
        elif kind == 2:
            inside[key] = [inside[key]]
        elif kind == 3:
            inside[key] = str(inside[key])[:200]
        else:
            inside[key] = copy.deepcopy(rng.choice(values))
    return tree


def _place(rng: Random, inside: Any) -> Any:
    return rng.randrange(len(inside)) if isinstance(inside, list) else rng.choice([*inside])


def spoiled_json(rng: Random, tree: Any) -> bytes:
    """Return JSON of a spoilt tree; now and then its text is spoilt as well, or no JSON at all."""
    kind = rng.randrange(20)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
    if kind == 1:
        return rng.choice((b"[" * 100_000, b'{"a":' * 3000, b"9" * 6000, b"", b"\xff\xfe", b"null"))
    text = json.dumps(spoiled_tree(rng, tree) if kind < 17 else tree)
    data = text.encode("utf-8", "surrogatepass")
    return spoiled_bytes(rng, data) if kind > 15 else data
