"""What counts as a key, and what only looks like one."""

import json
import subprocess
from pathlib import Path

import pytest

from mlmodeldev.secrets import (
    clean_environment,
    find,
    mask,
    secret_names,
    warn_of_keys_left_out,
    without_keys,
)
from mlmodeldev.trial.provenance import provenance
from tests.secrets.planted import HEX, KEYS, NEW


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_detected_wherever_it_stands_in_a_line(kind):
    key = KEYS[kind]
    for text in (key, f"x {key} y", f"a: '{key}'\n", f'{{"a": "{key}"}}', f"--key={key}"):
        assert [each.line for each in find("first\n" + text)] == [2], text
        assert key not in mask(text)


def test_commits_and_digests_are_no_keys():
    innocent = [
        json.dumps(provenance()),
        f"commit {HEX}",
        f'{{"sha": "{HEX}"}}',
        f"model.revision={HEX}",
        f"uses: actions/checkout@{HEX}",
        f"models--bert/snapshots/{HEX}/model.safetensors",
        f"sha256: {HEX}{HEX[:24]}",
        f"key = '{HEX}'  # key-guard: allow",
        "tokenizers_parallelism=false",
    ]
    assert [text for text in innocent if list(find(text))] == []


def test_a_line_about_a_key_is_one_whatever_else_it_says():
    assert list(find(f"git commit; wandb login {HEX}"))


def test_the_values_of_secret_variables_and_of_netrc_are_recognised(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("SITE_PASSWORD", "correct-horse-battery")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai login user password staple-of-my-own\n")
    monkeypatch.setenv("NETRC", str(netrc))
    output = mask("with correct-horse-battery and staple-of-my-own")
    assert output == "with [value of SITE_PASSWORD] and [value of api.wandb.ai in .netrc]"


def test_an_environment_without_keys_keeps_all_else():
    keys = {"WANDB_API_KEY": NEW, "HF_TOKEN": KEYS["Hugging Face"], "MY_SECRET": "s3cr3t-s3cr3t"}
    plain = {
        "LANG": "en_GB.UTF-8",
        "TOKENIZERS_PARALLELISM": "false",
        "SSH_KEY": "~/.ssh/id_rsa",
        "SLURM_JOB_ID": "7",
        "SORT_KEY": "accuracy",
        "GIT_COMMIT": HEX,
    }
    hidden = {"URL": f"https://{keys['MY_SECRET']}@host", "ARGS": f"--key {HEX}"}
    assert sorted(secret_names({**plain, **keys})) == sorted(keys)
    assert clean_environment({**keys, **plain, **hidden}) == plain


def test_a_key_that_jobs_will_lack_is_reported(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    warn_of_keys_left_out()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("WANDB_API_KEY", NEW)
    warn_of_keys_left_out()
    output = capsys.readouterr().err
    assert output.startswith("WANDB_API_KEY is not handed to jobs")
    assert NEW not in output
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {NEW}\n")
    warn_of_keys_left_out()
    assert capsys.readouterr().err == ""


def test_a_child_gets_no_key_and_this_process_keeps_its_own(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", NEW)
    with without_keys():
        output = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    assert NEW not in output
    assert "PATH=" in output
    assert (
        subprocess.run(["printenv", "WANDB_API_KEY"], capture_output=True, check=False).returncode
        == 0
    )
