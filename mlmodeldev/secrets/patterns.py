"""Keys recognised in text, and kept out of output and of the environment of other processes.

A key is recognised by its form, or because it is the value of one of the environment's secret
variables or of an entry of ``.netrc``. Forty hexadecimal digits are a W&B key of the older form,
and also a git commit: they count as a key unless the line speaks of a commit, a revision or a
digest, or they follow ``/`` or ``@``, as in addresses. A line that says ``key-guard: allow`` is
let pass.

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlmodeldev.secrets.environment import secret_names, secrets_here

ALLOW = "key-guard: allow"
"""On a line of a file: what looks like a key here is none."""

_FORMS: tuple[tuple[str, str], ...] = (
    ("W&B API key", r"wandb_v\d+_[A-Za-z0-9_-]{20,}"),
    ("W&B API key", r"\blocal-[A-Za-z0-9]{40,}"),
    ("W&B API key", r"(?<![0-9A-Za-z/@])[0-9a-f]{40}(?![0-9A-Za-z/])"),
    ("Hugging Face token", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    ("AWS access key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("AWS secret key", r"(?i:aws_?secret_?(access_?)?key)[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+=]{40}"),
    ("GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})"),
    ("private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
)
_SIGNS = (
    *("wandb_v", "local-", "hf_", "api_org_", "akia", "asia", "aws", "github_pat_", "-----begin "),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
)
"""In lower case: each form has one of these in it, but for the forty hexadecimal digits."""
_PATTERNS = tuple((kind, re.compile(form)) for kind, form in _FORMS)
_HEX = re.compile(r"[0-9a-f]{40}")
_THIRD_OF_HEX = re.compile(r"[0-9a-f]{13}")
"""In every third character of a text that has forty such digits."""
_DIGEST = re.compile(
    r"(?i)(?<![a-z])(sha-?\d*|commits?|rev(ision)?|head|digest|hash|checksum|index|blob|etag|git)"
    r"(?![a-z])"
)
_KEY = re.compile(r"(?i)api.?key|token|secret|password|login|wandb")


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


def find(text: str) -> Iterator[Match]:
    """Yield the keys in a text, in their order; none overlap."""
    offset, values = 0, secrets_here()
    if not _may_hold(text, values):
        return
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        # of long output, a few letters of another line are what made it worth a look
        if ALLOW not in line and _may_hold(line, values):
            for kind, start, end in _in_line(line, values):
                yield Match(kind, number, offset + start, offset + end)
        offset += len(line)


def _may_hold(text: str, values: Mapping[str, str]) -> bool:
    """Return whether a key may be in a text, by a look that long output can afford."""
    if any(value in text for value in values):
        return True
    if _THIRD_OF_HEX.search(text[::3]) and _HEX.search(text):
        return True
    lower = text.lower()
    return any(sign in lower for sign in _SIGNS)


def _in_line(line: str, values: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Return kind, start and end of the keys in a line; of two that overlap, the first."""
    if len(line) < 8:
        return []
    matches = [
        (f"value of {name}", match.start(), match.end())
        for value, name in values.items()
        if value in line
        for match in re.finditer(re.escape(value), line)
    ]
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(line):
            if not (_HEX.fullmatch(match[0]) and _is_digest(line)):
                matches.append((kind, match.start(), match.end()))
    apart: list[tuple[str, int, int]] = []
    for each in sorted(matches, key=lambda each: (each[1], -each[2])):
        if not apart or each[1] >= apart[-1][2]:
            apart.append(each)
    return apart


def _is_digest(line: str) -> bool:
    return bool(_DIGEST.search(line)) and not _KEY.search(line)


def mask(text: str) -> str:
    """Return the text with each key replaced by what it is, in brackets."""
    parts, at = [], 0
    for match in find(text):
        parts += [text[at : match.start], f"[{match.kind}]"]
        at = match.end
    return "".join([*parts, text[at:]]) if parts else text


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


def _masked_write(write: Any) -> Any:
    def masked(text: str) -> int:
        write(mask(text))
        return len(text)

    masked.masks_keys = True  # type: ignore[attr-defined]
    return masked


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without keys: for jobs, whose environment Slurm keeps on disk.

    Left out are the variables that hold keys, and any other whose value contains one. Jobs read
    ``.netrc`` instead, which ``wandb login`` writes.
    """
    secret = set(secret_names(environment))
    values = [environment[name] for name in secret]
    return {
        name: value
        for name, value in environment.items()
        if name not in secret
        and not any(each in value for each in values)
        and next(find(f"{name}={value}"), None) is None
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
