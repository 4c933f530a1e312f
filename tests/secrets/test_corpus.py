"""Keys of some sixty providers, as logs show them: none comes out; what is ordinary stays."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from mlmodeldev.secrets import (
    clean_environment,
    find,
    guard_output,
    mask,
    masked,
    secret_names,
)
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.process import _last_line
from tests.secrets.corpus import (
    BASE64,
    HEX,
    LETTERS,
    NAMED_LINES,
    Maker,
    named_keys,
    plain_lines,
    private_key,
    provider_keys,
)

DRAWS = 3
"""Keys of each provider."""
PROVIDERS = list(provider_keys(Maker(0)))
NAMES = list(named_keys(Maker(0)))
ROOT = Path(__file__).resolve().parents[2]


def core(key: str) -> str:
    """Return the secret part of a key, without what its form has in front."""
    return key[-12:] if len(key) >= 24 else key


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_providers_key_comes_out_nowhere(provider):
    for seed in range(DRAWS):
        key = provider_keys(Maker(seed))[provider]
        for how, line in plain_lines(key).items():
            shown = mask(line)
            assert key not in shown, (how, shown)
            assert core(key) not in shown, (how, shown)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_code_and_settings_with_it_are_refused(provider):
    for seed in range(3):
        key = provider_keys(Maker(seed))[provider]
        assert list(find(f"model.x={key}")), key
        assert list(find(f"KEY = '{key}'\n")), key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", NAMED_LINES)
def test_a_key_that_only_its_name_makes_one_comes_out_nowhere(name, how):
    for seed in range(DRAWS):
        label, key = named_keys(Maker(seed))[name]
        shown = mask(NAMED_LINES[how](label, key))
        assert key not in shown, shown
        assert core(key) not in shown, shown


ADDRESSES = [
    "https://{}:x-oauth-basic@git.example.org/a.git",
    "https://{}@git.example.org/a.git",
    "http://me:{}@proxy.example.org:3128",
    "HTTPS_PROXY=http://me:{}@10.0.0.1:3128/",
    "postgresql+psycopg://user:{}@db.example.org/mlflow",
    "fatal: unable to access 'https://me:{}@git.example.org/a.git/': 403",
    "redis://:{}@localhost:6379/0",
    "GET /file?X-Amz-Credential=a&X-Amz-Signature={}&x=1",
    "https://account.blob.core.windows.net/c/f?sv=2024-01-01&se=2027&sig={}",
    "https://api.example.org/v1?access_token={}&format=json",
    "Authorization: Bearer {}",
    "{{'authorization': 'Basic {}', 'accept': '*/*'}}",
    "curl -H 'X-Api-Key: {}' https://api.example.org",
    "> Cookie: session={}; theme=dark",
    'headers={{"X-Auth-Token": "{}"}}',
    "wandb login --token {}",
    "mlflow server --password {} --port 5000",
    "machine api.wandb.ai login user password {}",
    "machine api.wandb.ai\n  login user\n  password {}\n",
    "AKIA" + "Q1W2E3R4T5Y6U7I8,{}x0A9b8C7d6E5f4G3h2I1",
]


@pytest.mark.parametrize("form", ADDRESSES)
def test_passwords_in_addresses_headers_and_netrc(form):
    for seed in range(DRAWS):
        key = Maker(seed).of(LETTERS, 20)
        assert key not in mask(form.format(key)), form


@pytest.mark.parametrize("kind", ["PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY"])
def test_no_line_of_a_private_key_comes_out(kind, monkeypatch):
    key = private_key(Maker(1), kind)
    secret = [line for line in key.splitlines() if "-----" not in line]
    forms = [
        f"before\n{key}\nafter",
        "\n".join(f"+{line}" for line in f"{key}\nafter".splitlines()),
        json.dumps({"key": key, "n": "after"}),
        f"export K='{key}'\nafter",
    ]
    for text in forms:
        shown = mask(text)
        assert not [line for line in secret if line in shown]
        assert "after" in shown
    # as a program prints it: line by line, and in pieces
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    guard_output()
    for line in f"{key}\nafter".splitlines():
        print("a log:", line[:30], end="")
        print(line[30:])
    shown = sys.stdout.getvalue()
    assert not [line for line in secret if line[30:] in shown]
    assert shown.endswith("after\n")


def test_a_key_that_is_printed_after_its_name_is_masked(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    guard_output()
    print("password:", "hunter2hunter", "and on")
    print("step", 1, "loss", 0.5)
    assert sys.stdout.getvalue() == "password: [password] and on\nstep 1 loss 0.5\n"


def test_a_key_is_masked_before_a_text_is_cut(tmp_path):
    """Half of one would be taken for none."""
    for provider, key in provider_keys(Maker(3)).items():
        for most in range(8, 40 + len(key), 7):
            shown = masked(f"{'x' * 20} {key} refused", most)
            assert len(shown) <= most
            assert not [i for i in range(len(key) - 12) if key[i : i + 12] in shown], provider
    log = tmp_path / "log.txt"
    log.write_text("x" * 490 + " hf_" + "AbCdE" * 7)
    assert "AbC" not in _last_line(log)
    folder = TrialFolder(tmp_path)
    folder.update(state="failed", reason="ValueError:hf_" + "AbCdE" * 7)
    assert "AbC" not in (tmp_path / "trial.json").read_text()


ENVIRONMENT = {
    "OPENAI_APIKEY": "abcdefghijkl",
    "MY_SERVICE_TOKEN": "48151623",
    "SITE_PASSWORD": "pa55",
    "MYSQL_PWD": "a b c d",
    "GITLAB_PAT": "abcdefg",
    "CLEARML_API_SECRET_KEY": "short1",
}
NO_KEYS = {
    "PWD": "/scratch/me/work",
    "SORT_KEY": "accuracy",
    "MAX_TOKEN": "4096",
    "TOKENIZERS_PARALLELISM": "false",
    "SSH_KEY": "~/.ssh/id_rsa",
    "HF_TOKEN_PATH": "/scratch/me/.cache/token",
    "AUTH_TOKEN": "bearer",
    "WANDB_SECRET": "none",
    "COLORTERM": "truecolor",
}


def test_what_the_environment_names_a_key_is_one_however_short(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert sorted(secret_names({**ENVIRONMENT, **NO_KEYS})) == sorted(ENVIRONMENT)
    assert clean_environment({**ENVIRONMENT, **NO_KEYS}) == NO_KEYS
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name, value in ENVIRONMENT.items():
        for line in (f"got {value} there", f"({value})", json.dumps([value]), f"x={value}\n"):
            assert mask(line).count(f"[value of {name}]") == 1, line
    ordinary = "step 481516230 loss 48151623.5 pa55word 0.48151623 abcdefgh ashort1"
    assert mask(ordinary) == ordinary, "a short one is masked where it stands alone"


SPELLINGS = {
    "JSON": json.dumps,
    "an address": lambda key: quote(key, safe=""),
    "basic": lambda key: base64.b64encode(f"api:{key}".encode()).decode(),
    "basic, longer": lambda key: base64.b64encode(f"x-token:{key}".encode()).decode(),
    "basic, longest": lambda key: base64.b64encode(f"somebody@x:{key} ".encode()).decode(),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "of addresses": lambda key: base64.urlsafe_b64encode(f"u:{key}".encode()).decode(),
}


@pytest.mark.parametrize("how", SPELLINGS)
def test_a_key_of_the_environment_in_another_spelling(how, monkeypatch):
    for seed in range(DRAWS):
        key = Maker(seed).of(BASE64 + '"\\?>~', 24)
        monkeypatch.setenv("SOME_API_KEY", key)
        text = SPELLINGS[how](key)
        shown = mask(f"sent {text} to the server")
        assert text[8:-8] not in shown, shown


def test_a_proxys_password_is_masked_and_the_proxy_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    proxy = {"https_proxy": "http://me:tr0ub4dor@proxy:3128", "no_proxy": "localhost"}
    assert clean_environment(proxy) == proxy
    monkeypatch.setenv("https_proxy", proxy["https_proxy"])
    assert mask("407 from me with tr0ub4dor") == "407 from me with [value of https_proxy]"


ORDINARY = [
    "epoch 3/10  step 480  loss 0.4812  val/accuracy 0.93",
    "runs/default/d24q5tc4/checkpoints/epoch=3-step=480.ckpt",
    f"checkpoint sha256 {Maker(1).of(HEX, 64)}",
    f"commit {Maker(2).of(HEX, 40)}",
    f"  {Maker(3).of(HEX, 64)}  data/train.bin",
    "model.tokenizer=bert-base-uncased model.pad_token=[PAD] model.eos_token='</s>'",
    "tokens: 32768  num_tokens=131072  max_token_length: 512  token_type_ids: None",
    "key: value, sort_key=accuracy, keys=['a', 'b'], KeyError: 'input_ids'",
    "def login(password: str, token: str | None = None) -> None:",
    "password = getpass.getpass()",
    "token = os.environ['HF_TOKEN']",
    "api_key=settings.api_key, secret=self.secret",
    "WANDB_API_KEY: ${{ secrets.WANDB_API_KEY }}",
    "password: ask your admin",
    "cross_attention_key_projection_layer.weight torch.Size([64, 64])",
    "task-classification-of-sentences-v2 sk-learn-contrib-imbalanced-learn",
    "SSH_AUTH_SOCK=/tmp/ssh-abc/agent.1 PWD=/scratch/me/project",
    "git@github.com:org/project.git  https://github.com/org/project.git",
    "https://example.org/a?page=3&sort=key&code=ok  user@example.org wrote",
    "http://localhost:5000/#/experiments/3/runs/0123456789abcdef0123456789abcdef",
    "run 8fk2x1ab is under way in another agent; sweep team/project/ab12cd34",
    "uuid 123e4567-e89b-12d3-a456-426614174000 GPU-8a56a4bc-e184-a047-2620-be19fdf913d5",
    "-----BEGIN CERTIFICATE-----",
    "machine learning password managers default to login",
    "SLURM_JOB_ID=4711 SLURM_JOB_NODELIST=n[1-4]",
    "2026-01-01T10:00:00.123456 pid=48213 host=node-17",
    "passing 12 tests; 3 passed; bypass=True; compass: north; pass: 12.5, pass_through: linear",
    "signature: (x: Tensor, y: Tensor) -> Tensor",
    '"vision_model.embeddings.cls_token": "574ee98374a3ba87", "pad_token_id": 50256123456',
    "AKCDogBreeds2019 conv_pw=relu6 kernel['size'] = 'large7x7'",
    "the token is missing; secret: required; credentials: invalid",
]


@pytest.mark.parametrize("line", ORDINARY)
def test_what_is_ordinary_stays_as_it_is(line):
    assert mask(line) == line


def test_the_projects_own_code_and_pages_hold_little_that_is_masked():
    """Each is an example of a key or of its address; nothing else of 50,000 lines."""
    changed = []
    for file in [*ROOT.glob("*.py"), *ROOT.glob("mlmodeldev/**/*.py"), *ROOT.glob("docs/*.md")]:
        text = file.read_text()
        shown = mask(text).splitlines()
        changed += [
            f"{file.name}: {a}" for a, b in zip(text.splitlines(), shown, strict=True) if a != b
        ]
    assert len(changed) <= 12, changed
