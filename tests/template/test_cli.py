"""The command ``mlmodeldev``, and the module names that go on working."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlmodeldev import OLD_MODULES, __version__
from mlmodeldev.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("sweep", "sweep.search", "data", "alignment", "key_guard", "slurm.agent", "secrets")


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("module", MODULES)
def test_a_module_answers_by_its_name(module: str) -> None:
    assert run("-m", f"mlmodeldev.{module}", "--help").stdout.startswith("usage: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_answers(name: str) -> None:
    assert run("-m", "mlmodeldev", name, "--help").stdout.startswith("usage: ")


def test_an_old_module_is_the_new_one() -> None:
    for old, new in OLD_MODULES.items():
        names = [name for name in dir(importlib.import_module(new)) if name[0] != "_"]
        assert names
        for name in names:
            former = getattr(importlib.import_module(old), name)
            assert former is getattr(importlib.import_module(new), name)
    below = importlib.import_module("mlmodeldev.key_guard.patterns")
    assert below.ALLOW is importlib.import_module("mlmodeldev.secrets.patterns").ALLOW


def test_a_name_that_never_was_is_not_detected() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mlmodeldev.key_guards")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mlmodeldev.key_guard.nothing")


def test_help_lists_the_commands_and_imports_none() -> None:
    begun = time.monotonic()
    done = run("-X", "importtime", "-m", "mlmodeldev", "--help")
    assert all(f"\n    {name} " in done.stdout for name in COMMANDS)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "hydra", "wandb", "optuna", "yaml", "pydantic"}
    ours = {name for name in imported if name.startswith("mlmodeldev")}
    assert ours <= {"mlmodeldev", *(f"mlmodeldev.{n}" for n in ("cli", "errors", "arguments"))}
    assert time.monotonic() - begun < 10  # a tenth of a second where nothing else runs


def test_version() -> None:
    assert run("-m", "mlmodeldev", "--version").stdout == f"mlmodeldev {__version__}\n"


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        (["swep"], "swep: no such command; did you mean 'sweep'?"),
        ([], "which command?"),
        (["--versio=1"], "--version"),
        (["--nothing"], "unrecognized arguments: --nothing"),
        (["--print-completion", "csh"], "invalid choice: 'csh'"),
    ],
)
def test_bad_input_is_one_line(
    given: list[str], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert printed in shown.err
    assert shown.err.startswith("mlmodeldev: ")
    assert len(shown.err.splitlines()) == 1


def test_the_exit_status_of_a_command_is_that_of_its_module(tmp_path: Path) -> None:
    done = run("-m", "mlmodeldev", "sweep", "check", str(tmp_path / "none.yaml"), code=2)
    assert len((done.stdout + done.stderr).splitlines()) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_options_and_choices(shell: str) -> None:
    done = run("-m", "mlmodeldev", "--print-completion", shell)
    assert done.stderr == ""
    script = done.stdout
    for word in ("slurm", "doctor", "--tracker", "--conflicts", "--estimator", "--cluster"):
        assert word in script


def test_bash_completes_a_command(tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(run("-m", "mlmodeldev", "--print-completion", "bash").stdout)
    script_line = (
        f"source {script}; COMP_WORDS=(mlmodeldev upd); COMP_CWORD=1;"
        " COMP_LINE='mlmodeldev upd'; COMP_POINT=14;"
        " $(complete -p mlmodeldev | sed 's/.*-F //; s/ .*//'); echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", script_line], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["update"]


@pytest.mark.parametrize(
    "command",
    ["-m mlmodeldev data list", "-m mlmodeldev.data list", "trainer.py --cfg job",
     "-m mlmodeldev.sweep check sweep/config.yaml"],
)  # fmt: skip
def test_a_reader_that_has_left_is_no_fault(command: str) -> None:
    """As ``| head``, which has seen enough."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, *command.split()],
            cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
