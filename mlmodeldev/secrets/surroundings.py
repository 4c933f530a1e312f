"""What only its surroundings make a key: a name before it, an address around it, a header.

``password: hunter2`` in a log is one; in code it may be anything. So these rules mask output, and
refuse nothing.

Example::

    list(beside("clearml: secret_key=abcdef0123456789"))      # [("secret_key", 20, 36)]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mlmodeldev.secrets.environment import is_path

SIGNS = (
    *("key", "token", "secret", "pass", "pwd", "credential", "auth", "cookie", "signature"),
    *("bearer", "basic ", "sig=", "@", "akia", "asia", "aws"),
)
"""In lower case: without one of them there is nothing here to be found."""

# A name is looked for from its beginning alone: from each letter on, a long run of letters (DNA, a
# picture in base64) would take the square of its length. No match is lost: one that begins later
# would begin at the run's beginning, too, and no value ends within a run.
_NAME = r"(?<![A-Za-z0-9_.-])(?P<name>[A-Za-z0-9_.-]*"
_Q = r"\\*[\"'`]?"
_TO = rf"{_Q}\]?\s*(?:=>|:=|=|:)\s*(?:[brf]?)(?P<quote>{_Q})"
_PASSWORD = re.compile(
    rf"(?i){_NAME}(?:password|passwd|passphrase|passwort|pass|pwd)){_TO}"
    r"(?P<value>[^\s\"'`,;&\\)\]}<>]{3,})"
)
_KEY = re.compile(
    rf"(?i){_NAME}(?:api[_-]?key|access[_-]?key(?:[_-]?id)?|secret[_-]?key|private[_-]?key"
    r"|account[_-]?key|signing[_-]?key|auth[_-]?key|license[_-]?key|client[_-]?secret|secret"
    rf"|token|credentials?|jwt|signature)){_TO}(?P<value>[A-Za-z0-9+/=_.~:%|-]{{6,}})"
)
_JSON_KEY = re.compile(
    r"(?P<name>(?<!\\)\\*[\"']key\\*[\"'])\s*:\s*\\*[\"'](?P<value>[A-Za-z0-9_+/=-]{20,})"
)
_OPTION = re.compile(
    r"(?i)(?<!\S)--?(?P<name>[\w-]*(?:password|passwd|token|api[_-]?key|secret))[ \t]+[\"']?"
    r"(?P<value>[^\s\"'-][^\s\"']{5,})"
)
_HEADER = re.compile(
    r"(?i)(?P<name>\b(?:proxy-)?authorization|\bx-(?:[a-z]+-){0,9}(?:key|token|auth)"
    r"|\b(?:set-)?cookie)"
    rf"{_Q}\]?\s*[:=]\s*{_Q}(?:(?:basic|bearer|token|apikey|digest|negotiate)\s+)?"
    r"(?P<value>[^\s\"'`,\\{}()<>]{6,})"
)
_SCHEME = re.compile(
    r"(?P<name>\b(?:[Bb]earer|[Bb]asic|BEARER|BASIC))\s+(?P<value>[A-Za-z0-9+/=_.~-]{8,})"
)
_ADDRESS = re.compile(
    r"(?<=[\w+.-])://(?:(?P<user>[^\s/:@\"'<>]*):)?(?P<value>[^\s/@\"'<>]+)@(?=[\w\[.-])"
)
_QUERY = re.compile(
    r"(?i)[?&;](?P<name>(?:[\w-]*(?:token|sig|signature|api_?key|secret|password|passwd|credential)"
    r"|auth|key|code|sv))=(?P<value>[^&\s\"'`#<>]{6,})"
)
_NETRC = re.compile(
    r"(?P<name>\b(?:machine\s+(?:(?=\S+\.\S)\S+|localhost)|machine\s+\S+(?=\s+login)|default(?=\s+login))\s+(?:login\s+\S+\s+)?(?:account\s+\S+\s+)?password)"
    r"\s+(?P<value>\S+)"
)
_NETRC_LINE = re.compile(r"^\s*(?P<name>password)\s+(?P<value>[^\s=:]+)\s*$")
_AWS = re.compile(r"(?i)aws.{0,20}[\"'][A-Za-z0-9/+]{40}[\"']")
_BESIDE_AWS = re.compile(r"(?<![A-Za-z0-9/+=])(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])")

_OF_LANGUAGE = re.compile(
    r"(?i)(?:cls|class|pad|eos|bos|unk|sep|mask|image|audio|special|start|end|stop|next|first|last"
    r"|per|dist|distillation|forced|decoder|prefix|suffix|fim|sot|eot|new)_?token"
)
"""Tokens of language models are no keys."""
_WORDS = re.compile(
    r"(?i)(?:none|null|nil|true|false|yes|no|str|int|bytes|bool|float|dict|list|any|optional|auto"
    r"|default|required|missing|invalid|expired|wrong|empty|unset|set|given|hidden|masked|redacted"
    r"|bearer|basic|\*+|x+|\.+|-+|_+)"
)
_CODE = re.compile(r"[(\[{$]|^(?:os|self|cls|settings|config|cfg|args|getpass|env|environ)\.")


def beside(line: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of what a line's surroundings make a key; they may overlap."""
    for patterns, is_key in _RULES:
        for pattern in patterns:
            for match in pattern.finditer(line):
                if is_key(match):
                    yield _named(match)
    yield from _logins(line)
    if "AKIA" in line or "ASIA" in line or _AWS.search(line):
        for match in _BESIDE_AWS.finditer(line):
            if _is_mixed(match["value"]):
                yield "AWS secret key", *match.span("value")


def _logins(line: str) -> Iterator[tuple[str, int, int]]:
    """Yield what of an address stands before its host: a password, and a user that is a token."""
    for match in _ADDRESS.finditer(line):
        user = match["user"]
        if user and len(user) >= 12 and _is_random(user, "user"):
            yield "login", match.start("user"), match.end("value")
        elif _in_address(user, match["value"]):
            yield "password", *match.span("value")


def _named(match: re.Match[str]) -> tuple[str, int, int]:
    name = match["name"].strip("\\\"'?&;-")
    if re.match(r"machine\s|default\s", name) or match.re is _PASSWORD:
        name = "password"
    return name.rpartition(".")[2][-40:], match.start("value"), match.end("value")


def _is_password(value: str, quoted: bool) -> bool:
    """Whether a value may be a password: no word of code, no reference."""
    if _WORDS.fullmatch(value) or _CODE.search(value) or is_path(value):
        return False
    # without quotes, a name alone is code (`password=password`) or a sentence ("password: ask")
    return quoted or not re.fullmatch(r"[A-Za-z_.]+|[\d.,]{1,5}", value)


def _is_random(value: str, name: str) -> bool:
    """Whether a value may be a key: long enough, and not made of words or a number alone."""
    if not _is_password(value, True) or re.fullmatch(r"(?:sha\d+|md5):.*", value):
        return False
    if _OF_LANGUAGE.search(name):
        return False
    letters, digits = re.search(r"[A-Za-z]", value), re.search(r"\d", value)
    if name.lower().endswith("token") and not name.lower().endswith(("_token", "-token")):
        shortest = 12  # a word of language models, too
    else:
        shortest = 8
    if not letters:
        return len(value) >= shortest and bool(re.fullmatch(r"\d+", value))
    return len(value) >= shortest and (bool(digits) or len(value) >= 24)


def _is_mixed(value: str) -> bool:
    return all(re.search(each, value) for each in ("[a-z]", "[A-Z]", r"\d"))


def _in_address(user: str | None, value: str) -> bool:
    if _CODE.search(value) or _WORDS.fullmatch(value):
        return False
    # without a colon it is a name as of git@host, or a token
    return user is not None or (len(value) >= 12 and _is_random(value, "token"))


_RULES: tuple[tuple[tuple[re.Pattern[str], ...], Callable[[re.Match[str]], bool]], ...] = (
    ((_PASSWORD,), lambda match: _is_password(match["value"], bool(match["quote"]))),
    ((_KEY, _JSON_KEY, _QUERY), lambda match: _is_random(match["value"], match["name"])),
    (
        (_HEADER, _SCHEME, _OPTION),
        lambda match: _is_password(match["value"], True) and not match["value"].isalpha(),
    ),
    ((_NETRC, _NETRC_LINE), lambda match: True),
)
"""Forms, and what of each is a key."""
