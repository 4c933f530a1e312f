"""A key planted in a file, an override, a sweep value, a commit, the code: refused, never shown."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.secrets import key_in_changes, refuse_secrets, warn_of_open_netrc
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.slurm.command_line import main
from mlmodeldev.slurm.snapshot import take_snapshot
from mlmodeldev.sweep import load, loads
from tests.conftest import ROOT
from tests.secrets.planted import HEX, KEYS, NEW


@pytest.mark.parametrize("kind", KEYS)
def test_an_override_that_holds_a_key_is_refused(kind):
    with pytest.raises(UsageError, match=r"^logger.wandb.project: this is a key") as refused:
        compose_settings([f"logger.wandb.project='{KEYS[kind]}'"])
    assert KEYS[kind] not in str(refused.value)


def test_a_setting_that_names_a_secret_variable_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", HEX)
    with pytest.raises(UsageError, match=r"^logger.wandb.project: holds a key") as refused:
        compose_settings(["logger.wandb.project=${oc.env:WANDB_API_KEY}"])
    assert HEX not in str(refused.value)


@pytest.mark.parametrize("words", [[f"no.such.{NEW}=1"], ["-m", f"optimizer.lr={HEX}"]])
def test_the_trainer_says_where_and_exits_with_2(words):
    done = subprocess.run(
        [sys.executable, "trainer.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "this is a key" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert NEW not in done.stderr + done.stdout and HEX not in done.stderr + done.stdout


def test_the_launcher_too(capsys):
    assert main(["plan", f"logger.wandb.entity={HEX}"]) == 2
    output = capsys.readouterr()
    assert "logger.wandb.entity: this is a key" in output.err
    assert HEX not in output.err + output.out


def test_a_sweep_file_with_a_key_is_refused_with_its_line(tmp_path: Path):
    text = f"method: grid\nparameters:\n  logger.wandb.project:\n    values: [a, {HEX}]\n"
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    for read in (lambda: load(file), lambda: loads(text, str(file))):
        with pytest.raises(
            UsageError, match=r"sweep.yaml:4: holds a key \(W&B API key\)"
        ) as refused:
            read()
        assert HEX not in str(refused.value)


def test_files_and_folders_are_looked_through(tmp_path: Path):
    (tmp_path / "fine.py").write_text("x = 1\n")
    (tmp_path / "weights.bin").write_bytes(b"\0" + HEX.encode())
    refuse_secrets([tmp_path])
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "bad.py").write_text(f"x = 1\nkey = '{NEW}'\n")
    with pytest.raises(UsageError, match=r"deep/bad.py:2: holds a key") as refused:
        refuse_secrets([tmp_path])
    assert NEW not in str(refused.value)


# --- git: the copy of the code that jobs run, and the commit hook


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the hook installed as `make hooks` does."""
    folder = tmp_path / "clone"
    (folder / "tools").mkdir(parents=True)
    shutil.copytree(ROOT / "tools" / "hooks", folder / "tools" / "hooks")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "mlmodeldev").symlink_to(ROOT / "mlmodeldev")
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (folder / ".gitignore").write_text(".venv\nmlmodeldev\nruns\n")
    git(folder, "init", "-q")
    made = subprocess.run(
        ["make", "hooks"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return folder


def git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    names = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return subprocess.run(
        ["git", *names, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_the_hook_refuses_a_commit_with_a_key_and_takes_it_without(clone: Path):
    (clone / "train.py").write_text(f"import wandb\nwandb.login(key='{HEX}')\n")
    git(clone, "add", "-A")
    refused = git(clone, "commit", "-m", "work")
    assert refused.returncode != 0
    assert "train.py:2: holds a key" in refused.stderr
    assert HEX not in refused.stderr + refused.stdout
    # what counts is what is staged, not what lies in the folder
    (clone / "train.py").write_text("import wandb\nwandb.login()\n")
    assert git(clone, "commit", "-m", "work").returncode != 0
    git(clone, "add", "-A")
    done = git(clone, "commit", "-m", "work")
    assert done.returncode == 0, done.stderr


def test_code_with_a_key_is_not_copied_for_jobs(clone: Path, tmp_path: Path):
    (clone / "model.py").write_text(f"KEY = '{NEW}'\n")
    with pytest.raises(UsageError, match=r"model.py:1: holds a key"):
        take_snapshot(clone, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_difference_kept_beside_the_code_shows_no_key(clone: Path, tmp_path: Path):
    (clone / "model.py").write_text(f"KEY = '{NEW}'\n")
    git(clone, "add", "-A")
    git(clone, "commit", "--no-verify", "-qm", "careless")
    (clone / "model.py").write_text("KEY = None\n")
    copied = take_snapshot(clone, tmp_path / "runs")
    assert "-KEY = '[W&B API key]'" in (copied / "snapshot.diff").read_text()


def test_changes_with_a_key_are_not_for_a_tracker(clone: Path):
    program = clone / "train.py"
    program.write_text("import model\n")
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "begin")
    assert key_in_changes(clone, program) is None
    program.write_text("import model  # once more\n")
    assert key_in_changes(clone, program) is None
    (clone / "Makefile").write_text(f"login:\n\twandb login {HEX}\n")
    output = key_in_changes(clone, program)
    assert output is not None and output.startswith("git diff: holds a key (W&B API key)")
    program.write_text(f"token = '{NEW}'\n")
    output = key_in_changes(clone, program)
    assert output is not None and f"{program}:1: holds a key" in output
    assert HEX not in output and NEW not in output


def test_the_project_itself_holds_none():
    done = subprocess.run(
        [sys.executable, "-m", "mlmodeldev.secrets"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_netrc_that_others_can_read_is_reported_once(tmp_path: Path, monkeypatch, capsys):
    file = tmp_path / "netrc"
    file.write_text("machine a login b password cccccccccc\n")
    monkeypatch.setenv("NETRC", str(file))
    file.chmod(0o600)
    warn_of_open_netrc()
    assert capsys.readouterr().err == ""
    file.chmod(0o644)
    warn_of_open_netrc()
    warn_of_open_netrc()
    assert capsys.readouterr().err.splitlines() == [
        f"{file}: others can read your keys (mode 644); run: chmod 600 {file}"
    ]
