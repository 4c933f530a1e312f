"""Keys made by the rules of detect-secrets: what that scanner would report, output masks."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector

from mlmodeldev.secrets import mask
from tests.secrets.of_pattern import draw

pytestmark = pytest.mark.project

LEFT_OUT = {
    "Public IP (ipv4)": "no secret; a log of a cluster is full of them",
    "JSON Web Token": "must decode; test_corpus.py has such",
    "Private Key": "matches the line above a key; test_corpus.py has whole ones",
}
PATTERNS_LEFT_OUT = (
    r"AP[\dABCDEF][a-zA-Z0-9]{8,}",  # as good as any word in capitals
    r"AKC[a-zA-Z0-9]{10,}",  # and `AKCDogBreeds`: real keys are longer, test_corpus.py has them
)
DRAWS = 100
SCANNER = {kind: made() for kind, made in get_mapping_from_secret_type_to_class().items()}

WHOLE = {
    *(
        "Discord Bot Token",
        "GitHub Token",
        "GitLab Token",
        "Slack Token",
    ),
    *(
        "Mailchimp Access Key",
        "OpenAI Token",
        "PyPI Token",
        "SendGrid API Key",
        "Stripe Access Key",
    ),
    *("Square OAuth Secret", "Telegram Bot Token", "Twilio API Key"),
}
"""Kinds of which all that is matched is the secret."""
RECOGNISED_BY_NAME = {
    *("Cloudant Credentials", "IBM COS HMAC Credentials"),
    *("IBM Cloud IAM Key", "SoftLayer Credentials"),
}
ASSIGNED = re.compile(
    r"(?i)(?:api[_-]?key|secret[_-]?key|token|password|pass|pwd)[\"']?\]?\s*(?:=>|:=|=|:)\s*"
    r"[\"']?[\w/+]"
)
"""A name and its value: the rules allow the two without any sign between them, a bare ``key``,
which has digests as often, and ``pw``, which is a pointwise layer."""


def rules() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield the scanner's kinds of secret, each with a pattern."""
    for kind, detector in sorted(SCANNER.items()):
        if isinstance(detector, RegexBasedDetector) and kind not in LEFT_OUT:
            for pattern in detector.denylist:
                if not any(each in pattern.pattern for each in PATTERNS_LEFT_OUT):
                    yield kind, pattern


RULES = list(rules())


def plausible_secret(kind: str, pattern: re.Pattern[str], text: str) -> str:
    """Return the secret of a line, or "": the scanner sees none, or nobody gives such out."""
    match = pattern.search(text)
    if not match or not SCANNER[kind].analyze_string(text):
        return ""
    parts = [] if kind in WHOLE else list(filter(None, match.groups()))
    secret = max(parts, key=len, default=match[0]).strip(" '\"")
    own = secret.removeprefix("https://hooks.slack.com/services/")
    # unquoted letters alone are a name of code: `password=password`
    has_digits = re.search(r"\d", own) or (
        kind in RECOGNISED_BY_NAME and ("://" in text or re.search(f"[\"']{own}", text))
    )
    is_long = re.search("[A-Za-z]", own) and len(own) >= 20 + 12 * own.count("/")
    return own if has_digits and is_long and not re.search(r"[\s\\]", own) else ""


def test_the_scanner_has_its_rules() -> None:
    assert len({kind for kind, _ in RULES}) >= 19


@pytest.mark.parametrize(
    ("kind", "pattern"), RULES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(RULES)]
)
def test_what_a_scanner_reports_is_masked(kind: str, pattern: re.Pattern[str]) -> None:
    chance, shown = random.Random(0), []
    texts = [draw(pattern, chance) for _ in range(DRAWS)]
    if kind == "Basic Auth Credentials":
        texts = [f"https{each}example.org/" for each in texts]
    secrets = {text: plausible_secret(kind, pattern, text) for text in texts}
    tried = [(text, secret) for text, secret in secrets.items() if secret]
    if kind in RECOGNISED_BY_NAME:
        tried = [(t, s) for t, s in tried if "://" in t or ASSIGNED.search(t)]
    assert len(tried) >= 3, texts[:10]
    for text, secret in tried:
        if secret[-12:] in mask(f"12:00 login: {text} done"):
            shown.append(text)
    assert shown == []
