"""Masking a line takes a time in proportion to its length, whatever long run of letters it has."""

from __future__ import annotations

import base64
import random
import time

import pytest

from mlmodeldev.secrets import find, mask
from tests.secrets.planted import HEX

SIGNS = "key token auth@ sl. eyJ sk- t3BlbkFJ x-y aws commit: "
"""By which all rules look at a line."""
WEB_TOKEN = ".".join(("eyJhbGciOiJI", "eyJzdWIiOiI", "c2ln"))
_RNG = random.Random(0)
RUNS = {
    "letters": "A",
    "DNA": "ACGT",
    "protein": "MTEYKLVVVGAGGVGKSALTIQLIQNHFVDEYDP",
    "base64": base64.b64encode(_RNG.randbytes(30_000)).decode(),
    "base64 of addresses": base64.urlsafe_b64encode(_RNG.randbytes(30_000)).decode(),
    "hex": _RNG.randbytes(30_000).hex(),
    "not ASCII": "é",
    "Chinese": "中文",
    "mixed": "aéb中",
    "underscores": "_",
    "a percent code": "%41",
    "a colour": "\x1b[0m",
    "dotted": "a.",
    "dashed": "a-",
    "headers": "x-",
    "added": "a+",
    "a path": "ab/",
    "addresses": "a://b:",
    "logins": "a@",
    "queries": "&token",
    "names": "token.",
    "machines": "machine a.",
    "a machine's name": "machine " + "a." * 30_000,
    "keys' beginnings": "sl.hf_/SG.",
    "tokens' beginnings": "eyJ-",
    "numbers": "0.123, ",
    **{f"sign {sign!r}": sign for sign in "./-:=\\\"'` ?&@;|~+[]{}()<>,*#$"},
}


def seconds(text: str) -> float:
    """Return how long masking takes at its quickest, of this process's time."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        mask(text)
        times.append(time.process_time() - begun)
        if times[-1] > 1:
            break
    return min(times)


@pytest.mark.parametrize("kind", RUNS)
def test_four_times_the_letters_take_four_times_the_time(kind: str) -> None:
    run = RUNS[kind] * (60_000 // len(RUNS[kind]) + 1)
    short = seconds(SIGNS + run[:4000])
    assert short < 1, f"{short:.1f} s for 4000 letters"
    long = seconds(SIGNS + run[:16_000])
    assert long < 8 * max(short, 0.002), f"{short:.4f} s, then {long:.4f} s"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token=abcdef1234567和api_key=hunter2hunter2", "token=[token]和api_key=[api_key]"),
        ("größe_token=abcdef1234567", "größe_token=[e_token]"),
        ("my.very-own_api_key=hunter2hunter2", "my.very-own_api_key=[very-own_api_key]"),
        ("pad_token=abcdef1234567", "pad_token=abcdef1234567"),
        ('password="hunter2",password="hunter3"', 'password="[password]",password="[password]"'),
        (r"\"key\": \"abcdefgh0123456789xyz\"", r"\"key\": \"[key]\""),
        (r"\\\"token\\\": \\\"abcdefgh0123456\\\"", r"\\\"token\\\": \\\"[token]\\\""),
        ("1.https://me:hunter2@host", "1.https://me:[password]@host"),
        ("git+https://me:hunter2@host", "git+https://me:[password]@host"),
        ("a://b:hunter2@c://d:hunter3@e", "a://b:[password]@c://d:[password]@e"),
        ("my-x-own-auth: abcdef123", "my-x-own-auth: [x-own-auth]"),
        ("machine a.b.c login me password hunter2", "machine a.b.c login me password [password]"),
        ("machine localhost password hunter2", "machine localhost password [password]"),
        (f"jwt-{WEB_TOKEN}", "jwt-[JSON web token]"),
    ],
)
def test_a_name_begins_where_its_run_of_letters_does(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_of_many_digests_in_a_line_each_is_one() -> None:
    digests = f"{HEX} " * 3
    assert [each.kind for each in find(digests)] == ["W&B API key"] * 3
    assert list(find(f"commits {digests}")) == []
    short, long = (seconds("commits " + f"{HEX} " * count) for count in (500, 2000))
    assert long < 8 * max(short, 0.002), f"{short:.4f} s, then {long:.4f} s"
