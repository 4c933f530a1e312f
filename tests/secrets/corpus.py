"""Keys of many providers as they publish their form, made at random, and text that only looks so.

Written from the providers' pages, not from the table that recognises them.
"""

from __future__ import annotations

import base64
import json
import random
import string
import textwrap
from collections.abc import Callable
from urllib.parse import quote

LETTERS = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
HEX = string.digits + "abcdef"
URL = LETTERS + "-_"
BASE64 = LETTERS + "+/"


class Maker:
    """Draws keys; the same seed gives the same."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def of(self, alphabet: str, count: int) -> str:
        """Return characters, a digit and letters of both cases among them if there are any."""
        while True:
            text = "".join(self.random.choices(alphabet, k=count))
            wanted = [
                each for each in (string.ascii_lowercase, string.ascii_uppercase, string.digits)
                if set(each) & set(alphabet) and len(set(alphabet)) > 16
            ]  # fmt: skip
            if all(set(each) & set(text) for each in wanted):
                return text

    def token_of_json(self) -> str:
        """Return a JSON web token."""
        parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": self.of(HEX, 12), "exp": 1999999999})
        text = [base64.urlsafe_b64encode(json.dumps(each).encode()).decode() for each in parts]
        return ".".join(each.rstrip("=") for each in [*text]) + "." + self.of(URL, 43)


def provider_keys(maker: Maker) -> dict[str, str]:
    """Return a key of each provider, which is one wherever it stands."""
    m = maker.of
    return {
        "Weights & Biases": f"wandb_v1_{m(URL, 77)}",
        "Weights & Biases, older": m(HEX, 40),
        "Hugging Face": f"hf_{m(string.ascii_letters, 34)}",
        "OpenAI project": f"sk-proj-{m(URL, 74)}T3BlbkFJ{m(URL, 74)}",
        "OpenAI, older": f"sk-{m(LETTERS, 20)}T3BlbkFJ{m(LETTERS, 20)}",
        "Anthropic": f"sk-ant-api03-{m(URL, 93)}AA",
        "OpenRouter": f"sk-or-v1-{m(HEX, 64)}",
        "xAI": f"xai-{m(LETTERS, 80)}",
        "Groq": f"gsk_{m(LETTERS, 52)}",
        "Perplexity": f"pplx-{m(LETTERS, 48)}",
        "Replicate": f"r8_{m(LETTERS, 37)}",
        "NVIDIA": f"nvapi-{m(URL, 64)}",
        "LangSmith": f"lsv2_pt_{m(HEX, 32)}_{m(HEX, 10)}",
        "Pinecone": f"pcsk_{m(LETTERS, 6)}_{m(LETTERS, 63)}",
        "Google": f"AIza{m(URL, 35)}",
        "Google OAuth": f"ya29.{m(URL, 120)}",
        "Google client": f"GOCSPX-{m(URL, 28)}",
        "GitHub": f"ghp_{m(LETTERS, 36)}",
        "GitHub app": f"ghs_{m(LETTERS, 36)}",
        "GitHub, fine": f"github_pat_{m(LETTERS, 22)}_{m(LETTERS, 59)}",
        "GitLab": f"glpat-{m(URL, 20)}",
        "GitLab runner": f"glrt-{m(URL, 20)}",
        "AWS": f"AKIA{m(UPPER, 16)}",
        "AWS session": f"ASIA{m(UPPER, 16)}",
        "Azure storage": f"AccountKey={m(BASE64, 86)}==",
        "Azure client": f"{m(LETTERS, 3)}8Q~{m(LETTERS, 34)}",
        "Slack bot": f"xoxb-{m(string.digits, 12)}-{m(string.digits, 13)}-{m(LETTERS, 24)}",
        "Slack app": f"xapp-1-A{m(UPPER, 9)}-{m(string.digits, 12)}-{m(HEX, 64)}",
        "Slack webhook": "https://hooks.slack.com/services/"
        f"T{m(UPPER, 8)}/B{m(UPPER, 8)}/{m(LETTERS, 24)}",
        "Discord": f"M{m(LETTERS, 25)}.{m(URL, 6)}.{m(URL, 37)}x",
        "Discord webhook": f"https://discord.com/api/webhooks/{m(string.digits, 18)}/{m(URL, 68)}",
        "Telegram": f"{m('123456789', 10)}:AA{m(URL, 33)}",
        "Stripe": f"sk_live_{m(LETTERS, 24)}",
        "SendGrid": f"SG.{m(URL, 21)}a.{m(URL, 42)}a",
        "Mailgun": f"key-{m(HEX, 32)}",
        "Mailchimp": f"{m(HEX, 32)}-us12",
        "Twilio": f"SK{m(HEX, 32)}",
        "Artifactory": f"AKC{m(LETTERS, 69)}a1",
        "npm": f"npm_{m(LETTERS, 36)}",
        "PyPI": f"pypi-AgEIcHlwaS5vcmc{m(URL, 150)}",
        "DigitalOcean": f"dop_v1_{m(HEX, 64)}",
        "Databricks": f"dapi{m(HEX, 32)}",
        "Docker Hub": f"dckr_pat_{m(URL, 27)}",
        "Heroku": f"HRKU-AA{m(URL, 58)}",
        "Linear": f"lin_api_{m(LETTERS, 40)}",
        "Notion": f"ntn_{m(string.digits, 11)}{m(LETTERS, 35)}",
        "Figma": f"figd_{m(URL, 40)}",
        "Postman": f"PMAK-{m(HEX, 24)}-{m(HEX, 34)}",
        "Grafana": f"glsa_{m(LETTERS, 32)}_{m(HEX, 8)}",
        "New Relic": f"NRAK-{m(UPPER, 27)}",
        "Sentry": f"sntrys_eyJ{m(LETTERS, 80)}_{m(LETTERS, 43)}",
        "Vault": f"hvs.{m(URL, 95)}",
        "Terraform": f"{m(LETTERS, 14)}.atlasv1.{m(URL, 67)}",
        "Shopify": f"shpat_{m(HEX, 32)}",
        "Airtable": f"pat{m(LETTERS, 14)}.{m(HEX, 64)}",
        "Atlassian": f"ATATT3xFfGF0{m(URL, 160)}",
        "Supabase": f"sbp_{m(HEX, 40)}",
        "age": f"AGE-SECRET-KEY-1{m('QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L', 58)}",
        "JSON web token": maker.token_of_json(),
    }


def named_keys(maker: Maker) -> dict[str, tuple[str, str]]:
    """Return keys without a mark, with the name that makes each one: ``(name, key)``."""
    m = maker.of
    return {
        "Cohere": ("CO_API_KEY", m(LETTERS, 40)),
        "Mistral": ("MISTRAL_API_KEY", m(LETTERS, 32)),
        "Comet": ("COMET_API_KEY", m(LETTERS, 25)),
        "ClearML": ("secret_key", m(LETTERS, 50)),
        "ClearML access": ("access_key", m(UPPER, 20)),
        "one word": ("OPENAI_APIKEY", m(LETTERS, 32)),
        "camels": ("openaiApiKey", m(LETTERS, 32)),
        "client": ("clientSecret", m(LETTERS, 20)),
        "digits alone": ("CLUSTER_API_KEY", m(string.digits, 12)),
        "short": ("service_token", m(LOWER, 9)),
        "password": ("db.password", m(LETTERS, 10)),
        "short password": ("PGPASSWORD", m(LOWER, 5)),
        "words": ("admin_password", "correct-horse-battery"),
        "passphrase": ("key_passphrase", m(LETTERS, 12)),
        "AWS secret": ("aws_secret_access_key", m(BASE64, 40)),
        "AWS session": ("aws_session_token", m(BASE64, 200)),
        "signature": ("X-Amz-Signature", m(HEX, 64)),
    }


NAMED_LINES: dict[str, Callable[[str, str], str]] = {
    "shell": lambda name, key: f"export {name}={key}",
    "environment": lambda name, key: f"  {name}={key} LANG=C",
    "YAML": lambda name, key: f"    {name}: {key}",
    "YAML with quotes": lambda name, key: f"    {name}: '{key}'  # mine",
    "JSON": lambda name, key: json.dumps({"user": "me", name: key, "n": 1}),
    "JSON in JSON": lambda name, key: json.dumps({"body": json.dumps({name: key})}),
    "a mapping": lambda name, key: f"Config({{'{name}': '{key}', 'epochs': 3}})",
    "an argument": lambda name, key: f"ValueError: connect({name}='{key}', retries=3) failed",
    "a sentence": lambda name, key: f"2026-01-01 10:00:00 INFO login with {name}: {key}",
}
"""How a log shows a key beside its name."""


def plain_lines(key: str) -> dict[str, str]:
    """Return lines of logs with a key that needs no name."""
    return {
        "alone": key,
        "a sentence": f"could not log in with {key}: 401 Unauthorized",
        "an end": f"the key is {key}.",
        "JSON": json.dumps({"user": "me", "value": key, "n": 1}),
        "YAML": f"logger:\n  value: {key}\n  mode: offline",
        "a traceback": textwrap.dedent(f"""\
            Traceback (most recent call last):
              File "/scratch/me/project/model.py", line 12, in setup
                client = connect("{key}")
            ValueError: refused: '{key}'"""),
        "an argument": f"python train.py --login={key} optimizer.lr=0.1",
        "an address": f"GET https://api.example.org/v1/models?id=3&t={quote(key, safe='')} 403",
        "a representation": repr({"a": [key, None]}),
        "colours": f"\x1b[31m{key}\x1b[0m",
    }


def private_key(maker: Maker, kind: str = "RSA PRIVATE KEY") -> str:
    """Return what looks like a private key in PEM."""
    body = "\n".join(textwrap.wrap(maker.of(BASE64, 800), 64))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"
