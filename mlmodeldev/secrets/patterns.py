"""Keys recognised in text, and kept out of output and of the environment of other processes.

A key is recognised by its form (`mlmodeldev.secrets.providers`), or because it is the value of one
of the environment's secret variables or of an entry of ``.netrc``; output is also masked where only
what stands beside it says so (`mlmodeldev.secrets.surroundings`). Forty hexadecimal digits are a
W&B key of the older form, and also a git commit: they count as a key unless the line speaks of a
commit, a revision or a digest, or they follow ``/`` or ``@``, as in addresses. A line that says
``key-guard: allow`` is let pass.

Example::

    [each.kind for each in find("HF_TOKEN=hf_...")]      # ["Hugging Face token"]
    mask("login with wandb_v1_...")                       # "login with [W&B API key]"
    subprocess.run(["sbatch", script], env=clean_environment(os.environ))
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from mlmodeldev.secrets.environment import is_proxy, secret_names, secrets_here, spellings
from mlmodeldev.secrets.escapes import without_escapes
from mlmodeldev.secrets.providers import BEGIN, END, FORMS, Form
from mlmodeldev.secrets.surroundings import SIGNS, beside

ALLOW = "key-guard: allow"
"""On a line of a file: what looks like a key here is none."""

_HEX_KEY = re.compile(r"(?<![0-9A-Za-z/@])[0-9a-f]{40}(?![0-9A-Za-z/])")
"""A W&B key of the older form."""
_HEX = re.compile(r"[0-9a-f]{40}")
_THIRD_OF_HEX = re.compile(r"[0-9a-f]{13}")
"""In every third character of a text that has forty such digits."""
_DIGEST = re.compile(
    r"(?i)(?<![a-z])(sha-?\d*|commits?|rev(ision)?|head|digest|hash|checksum|index|blob|etag|git)"
    r"(?![a-z])"
)
_KEY = re.compile(r"(?i)api.?key|token|secret|password|login|wandb")


_Signed = tuple[str, Form]
_BY_SIGN: list[_Signed] = [(sign, form) for form in FORMS for sign in form.signs]
"""Each form with what is in it, in lower case."""


@dataclass(frozen=True)
class Match:
    """A key in a text.

    Attributes:
        kind: what key it is.
        line: counted from 1.
        start, end: its place in the text.
    """

    kind: str
    line: int
    start: int
    end: int


def find(text: str, surroundings: bool = False) -> Iterator[Match]:
    """Yield the keys in a text, in their order; none overlap.

    Args:
        text: of any length.
        surroundings: also what only a name or an address beside it makes a key
            (`mlmodeldev.secrets.surroundings`).
    """
    yield from _Search(surroundings).matches(text)


class _Search:
    """The keys in text that comes in pieces: a private key has many lines."""

    def __init__(self, surroundings: bool) -> None:
        self.surroundings, self.in_private_key = surroundings, False

    def matches(self, text: str) -> Iterator[Match]:
        values = _spelled(secrets_here())
        offset, forms = 0, self._worth_a_look(text, values)
        if forms is None:
            return
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            # of long output, a few letters of another line are what made it worth a look
            for kind, start, end in self._in_line(line, values, forms):
                yield Match(kind, number, offset + start, offset + end)
            offset += len(line)

    def _worth_a_look(self, text: str, values: Mapping[str, str]) -> list[_Signed] | None:
        """Return the forms that may be in a text; None: no key is, by a look that is cheap."""
        lower = text.lower()
        forms = [each for each in _BY_SIGN if each[0] in lower]
        if forms or self.in_private_key or any(value in text for value in values):
            return forms
        if _THIRD_OF_HEX.search(text[::3]) and _HEX.search(text):
            return forms
        beside_a_name = self.surroundings and any(sign in lower for sign in SIGNS)
        return forms if beside_a_name else None

    def _in_line(
        self, line: str, values: Mapping[str, str], forms: Sequence[_Signed]
    ) -> list[tuple[str, int, int]]:
        """Return kind, start and end of the keys in a line; of two that overlap, the first."""
        if self.in_private_key:
            self.in_private_key = not END.search(line) and not line.isspace()
            length = len(line.rstrip())
            return [("private key", len(line) - len(line.lstrip()), length)] if length else []
        if ALLOW in line or len(line) < _SHORTEST_LINE:
            return []
        matches = [*_of_values(line, values), *self._of_text(line, forms)]
        if decoded := without_escapes(line):
            text, places = decoded
            matches += [(k, places[a], places[b]) for k, a, b in self._of_text(text, forms)]
        begin = BEGIN.search(line)
        self.in_private_key = bool(begin and not END.search(line, begin.end()))
        return _apart(matches)

    def _of_text(self, line: str, forms: Sequence[_Signed]) -> Iterator[tuple[str, int, int]]:
        lower = line.lower()
        yield from _of_forms(line, lower, forms)
        if self.surroundings and any(sign in lower for sign in SIGNS):
            yield from beside(line)


_SHORTEST_LINE, _SHORTEST_HEX = 4, 40


@lru_cache(maxsize=8)
def _of(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return {form: name for value, name in items for form in spellings(value)}


def _spelled(values: Mapping[str, str]) -> Mapping[str, str]:
    """Return the spellings of keys, with where each comes from."""
    return _of(tuple(values.items()))


def _of_values(line: str, values: Mapping[str, str]) -> Iterator[tuple[str, int, int]]:
    for value, name in values.items():
        if value in line:
            for match in _whole(value).finditer(line):
                yield f"value of {name}", match.start(), match.end()


@lru_cache(maxsize=1024)
def _whole(value: str) -> re.Pattern[str]:
    """Return a pattern of a key; a short one or a number must stand alone, not within another."""
    if len(value) >= 8 and not value.isdigit():
        return re.compile(re.escape(value))
    return re.compile(rf"(?<![A-Za-z0-9])(?<!\d\.){re.escape(value)}(?![A-Za-z0-9])(?!\.\d)")


def _of_forms(line: str, lower: str, forms: Sequence[_Signed]) -> Iterator[tuple[str, int, int]]:
    for _, form in forms:
        if any(sign in lower for sign in form.signs):
            for match in form.pattern.finditer(line):
                yield form.kind, match.start(), match.end()
    if len(line) < _SHORTEST_HEX:
        return
    keys = [*_HEX_KEY.finditer(line)]
    if keys and not _is_digest(line):  # asked once: a list of digests is a long line
        for match in keys:
            yield "W&B API key", match.start(), match.end()


def _apart(matches: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Return the matches without those that overlap: what is left over of one is masked, too."""
    apart: list[tuple[str, int, int]] = []
    for kind, start, end in sorted(matches, key=lambda each: (each[1], -each[2])):
        if not apart or start >= apart[-1][2]:
            apart.append((kind, start, end))
        elif end > apart[-1][2]:
            first, begin, _ = apart[-1]
            apart[-1] = (first, begin, end)
    return apart


def _is_digest(line: str) -> bool:
    return bool(_DIGEST.search(line)) and not _KEY.search(line)


def mask(text: str) -> str:
    """Return the text with each key replaced by what it is, in brackets."""
    return _replaced(text, _Search(surroundings=True).matches(text), 0)


def masked(text: str, most: int) -> str:
    """Return the first characters of a text, keys masked: cut first, a half of one would stay."""
    return mask(text)[:most]


def _replaced(text: str, matches: Iterable[Match], shown: int) -> str:
    """Return the text from a place on, with its keys replaced."""
    parts, at = [], shown
    for match in matches:
        if match.end > shown:
            parts += [text[at : max(match.start, at)], f"[{match.kind}]"]
            at = match.end
    return "".join([*parts, text[at:]])


def guard_output() -> None:
    """Let what Python writes to standard output and error pass through `mask`; once is enough.

    A traceback is written the same way. What a C library writes goes past Python and is not seen.
    """
    for stream in (sys.stdout, sys.stderr):
        write = getattr(stream, "write", None)
        if write is None or getattr(write, "masks_keys", False):
            continue
        try:
            stream.write = _masked_write(write)  # type: ignore[method-assign]
        except AttributeError:
            continue  # a stand-in of some framework, which keeps what it gets in memory


_LONGEST_LINE = 500
"""Characters before a piece of output that are looked at with it."""


def _masked_write(write: Any) -> Any:
    search, before = _Search(surroundings=True), ""

    def masked_write(text: str) -> int:
        nonlocal before
        # `print("password:", word)` writes the name and the word one after the other
        whole = before + text
        end = max(whole.rfind("\n"), whole.rfind("\r")) + 1
        matches = list(search.matches(whole[:end]))
        in_private_key = search.in_private_key
        for each in search.matches(whole[end:]):  # of a line that may go on
            matches.append(replace(each, start=each.start + end, end=each.end + end))
        search.in_private_key = in_private_key
        write(_replaced(whole, matches, len(before)))
        before = whole[end:][-_LONGEST_LINE:]
        return len(text)

    masked_write.masks_keys = True  # type: ignore[attr-defined]
    return masked_write


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without keys: for jobs, whose environment Slurm keeps on disk.

    Left out are the variables that hold keys, and any other whose value contains one. Jobs read
    ``.netrc`` instead, which ``wandb login`` writes. A proxy stays even if its address has a
    password: nothing else tells a job how to reach the network.
    """
    secret = set(secret_names(environment))
    values = [_whole(environment[name]) for name in secret]
    return {
        name: value
        for name, value in environment.items()
        if name not in secret
        and not any(each.search(value) for each in values)
        and (is_proxy(name) or next(find(f"{name}={value}"), None) is None)
    }


@contextlib.contextmanager
def without_keys() -> Iterator[None]:
    """Take the keys out of this process's environment for a while: what it starts gets none."""
    clean = clean_environment(os.environ)
    removed = {name: value for name, value in os.environ.items() if name not in clean}
    for name in removed:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(removed)
