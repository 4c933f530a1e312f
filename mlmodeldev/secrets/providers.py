"""What keys look like that carry a mark of who gave them out.

The marks are those that the providers publish so that scanners find their keys; a test makes keys
by the rules of detect-secrets, and says which of the rules are not followed. A form here is a key
wherever it stands, so it is refused in code and settings and masked in output; what only its
surroundings make a key is in `mlmodeldev.secrets.surroundings`.

Example::

    [each.kind for each in FORMS if each.pattern.search("xai-...")]      # ["xAI key"]
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLAIN = {
    "Groq key": ("gsk_", 40),
    "Perplexity key": ("pplx-", 40),
    "Replicate token": ("r8_", 30),
    "RunPod key": ("rpa_", 30),
    "Jina key": ("jina_", 50),
    "Kaggle token": ("KGAT_", 20),
    "Hugging Face token": ("hf_ api_org_", 30),
    "Stripe key": ("sk_live_ sk_test_ sk_prod_ rk_live_ rk_test_ rk_prod_ whsec_", 16),
    "npm token": ("npm_", 30),
    "DigitalOcean token": ("dop_v1_ doo_v1_ dor_v1_", 40),
    "Databricks token": ("dapi", 32),
    "Linear key": ("lin_api_ lin_oauth_", 30),
    "Notion token": ("ntn_", 30),
    "New Relic key": ("NRAK- NRJS- NRII- NRSP-", 15),
    "Doppler token": ("dp.pt. dp.st. dp.sa. dp.ct.", 30),
    "Shopify token": ("shpat_ shpca_ shppa_ shpss_", 30),
    "Artifactory key": ("AKC cmVmd", 50),
    "Supabase token": ("sbp_", 30),
    "Netlify token": ("nfp_", 30),
    "DVC Studio token": ("isat_", 30),
    "Alibaba key": ("LTAI", 16),
}
"""By kind: what a key begins with, and how many letters and digits follow at least."""
_WIDE = {
    "OpenAI key": ("sk-proj- sk-svcacct- sk-admin- sk-None-", 20),
    "Anthropic key": ("sk-ant-", 20),
    "OpenRouter key": ("sk-or-v", 20),
    "xAI key": ("xai-", 40),
    "Together key": ("tgp_v1_", 20),
    "NVIDIA key": ("nvapi-", 30),
    "Cerebras key": ("csk-", 30),
    "LangSmith key": ("lsv2_pt_ lsv2_sk_", 20),
    "Pinecone key": ("pcsk_", 30),
    "Google key": ("AIza ya29. GOCSPX-", 20),
    "GitHub token": ("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", 36),
    "GitLab token": (
        "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glagent- gloas- glimt- glffct- GR1348941",
        20,
    ),
    "Slack token": ("xoxb- xoxp- xoxa- xoxe- xoxo- xoxr- xoxs- xapp- xoxe.", 10),
    "SendGrid key": ("SG.", 40),
    "PyPI token": ("pypi-AgE", 40),
    "Docker token": ("dckr_pat_ dckr_oat_", 20),
    "Heroku key": ("HRKU-", 30),
    "Figma token": ("figd_", 30),
    "Postman key": ("PMAK-", 30),
    "Grafana token": ("glsa_ glc_", 30),
    "Sentry token": ("sntrys_ sntryu_", 30),
    "Vault token": ("hvs. hvb. hvr.", 20),
    "Atlassian token": ("ATATT3 ATCTT3 ATBB", 24),
    "PlanetScale token": ("pscale_tkn_ pscale_pw_ pscale_oauth_", 30),
    "Fly token": ("fo1_ fm1_ fm2_", 30),
    "Neptune token": ("eyJhcGlf", 40),
    "Square token": ("sq0atp- sq0csp-", 22),
    "1Password token": ("ops_eyJ", 100),
    "Dropbox token": ("sl.", 100),
}
"""The same where other signs may be among the letters: ``-``, ``_``, ``.``, ``+``, ``/``, ``=``."""

_PEM = "[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
_FORMS: tuple[tuple[str, str, str], ...] = (
    ("W&B API key", "wandb_v", r"wandb_v\d+_[A-Za-z0-9_-]{20,}"),
    ("W&B API key", "local-", r"\blocal-[A-Za-z0-9]{40,}"),
    ("OpenAI key", "t3blbkfj", r"\bsk-[A-Za-z0-9_-]{16,200}T3BlbkFJ[A-Za-z0-9_-]{16,}"),
    ("OpenAI key", "sk-", r"(?<![\w-])sk-(?=[A-Za-z]*\d)(?=[a-z\d]*[A-Z])[A-Za-z0-9]{32,}"),
    ("DeepSeek key", "sk-", r"(?<![\w-])sk-[0-9a-f]{32}\b"),
    *(
        ("AWS access key", mark.lower(), rf"\b{mark}[A-Z0-9]{{16}}\b")
        for mark in ("AKIA", "ASIA", "ABIA", "ACCA")
    ),
    ("AWS access key", "a3t", r"\bA3T[A-Z0-9]{17}\b"),
    (
        "AWS secret key",
        "aws",
        r"(?i:aws_?secret_?(access_?)?key)[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+=]{40}",
    ),
    ("Azure key", "accountkey", r"(?i:accountkey)=[A-Za-z0-9+/]{60,}={0,2}"),
    ("Azure secret", "q~", r"(?<![\w~.])[\w~.]{3}\dQ~[\w~.-]{31,34}"),
    ("Slack webhook", "hooks.slack", r"hooks\.slack(?:-gov)?\.com/\w+/[\w/]{30,}"),
    ("Discord webhook", "webhooks", r"discord(?:app)?\.com/api/webhooks/\d+/[\w-]{50,}"),
    ("Discord token", ".", r"\b[MNO][\w-]{23,26}\.[\w-]{6}\.[\w-]{27,38}(?![\w-])"),
    ("Telegram token", ":|%3a", r"\b[0-9]{8,10}:[A-Za-z0-9_-]{35}(?![\w-])"),
    ("Twilio key", "sk|ac", r"\b(?:SK|AC)[0-9a-z]{32}\b"),
    ("SoftLayer key", "softlayer", r"softlayer\.com/soap/v3(?:\.1)?/[a-z0-9]{64}"),
    ("Mailgun key", "key-", r"\bkey-[0-9a-f]{32}\b"),
    ("Mailchimp key", "-us", r"\b[0-9a-z]{32}-us\d{1,2}\b"),
    ("Airtable token", "pat", r"\bpat[A-Za-z0-9]{14}\.[0-9a-f]{64}\b"),
    ("Terraform token", ".atlasv1.", r"\b[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,}"),
    (
        "JSON web token",
        "eyj",
        r"(?:(?<![\w-])eyJ[\w-]{8,}|\beyJ[\w-]{8,2000})\.[\w-]{8,}(?:\.[\w.+/=-]*)?(?<![.])",
    ),
    ("age key", "age-secret-key-1", r"AGE-SECRET-KEY-1[A-Z0-9]{50,}"),
    ("1Password key", "a3-", r"\bA3-[A-Z0-9]{6}-[A-Z0-9]{6}(?:-?[A-Z0-9]{5}){3,4}\b"),
    ("private key", "-----begin ", rf"-----BEGIN {_PEM}(?:.*-----END {_PEM}|[\w+/=\\]*)"),
)
"""Kind, what each has in it (one of these, in lower case), and the form."""


@dataclass(frozen=True)
class Form:
    """One form of key.

    Attributes:
        kind: of key.
        signs: in lower case; a text without any of them holds no such key.
        pattern: the key.
    """

    kind: str
    signs: tuple[str, ...]
    pattern: re.Pattern[str]


def _with_tail(kind: str, prefixes: str, count: int, signs: str) -> Form:
    starts = prefixes.split()
    either = "|".join(map(re.escape, starts))
    # a random one has a digit, or a small letter before a capital, long before so many letters
    tail = rf"(?=[\w.+/=-]{{0,200}}?(?:\d|[a-z][A-Z]))[A-Za-z0-9{signs}]{{{count},}}(?<![.])"
    pattern = re.compile(rf"(?<![A-Za-z0-9_-])(?:{either}){tail}")
    return Form(kind, tuple(start.lower() for start in starts), pattern)


FORMS: tuple[Form, ...] = (
    *(Form(kind, tuple(sign.split("|")), re.compile(form)) for kind, sign, form in _FORMS),
    *(_with_tail(kind, *each, signs="") for kind, each in _PLAIN.items()),
    *(_with_tail(kind, *each, signs="_.+/=-") for kind, each in _WIDE.items()),
)


BEGIN = re.compile(rf"-----BEGIN {_PEM}")
END = re.compile(rf"-----END {_PEM}")
"""Of a private key, whose lines between them are masked whole."""
