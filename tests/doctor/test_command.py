"""The command: statuses, JSON, what submit makes of it, and checks that fail or hang."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlmodeldev.cli import slurm_train
from mlmodeldev.doctor import run
from mlmodeldev.doctor.checks import CHECKS
from mlmodeldev.doctor.line import Check, Line, Scope, ok
from tests.doctor.conftest import Place
from tests.doctor.planted import umask_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"))


def doctor(place: Place, *words: str) -> int:
    folders = (f"artefacts.{name}_dir={place.folder}/{name}" for name in ("runs", "data"))
    return slurm_train(["doctor", "--sweep", str(place.sweep), *folders, *words])


def cpu_seconds(*command: str) -> tuple[float, str]:
    """Return the processor time of a command, and what it prints."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime, done.stdout + done.stderr


def test_this_machine_gives_no_false_alarm(place: Place) -> None:
    """The real torch and packages; its disk and umask may be as they are."""
    place.patch.setenv("WANDB_MODE", "offline")
    command = [*SCRIPT, "doctor", "--json", "--sweep", str(place.sweep)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    shown = json.loads(done.stdout)
    own = {"disk", "modes", "quota"}
    wrong = [r for r in shown["lines"] if r["level"] != "OK" and r["check"] not in own]
    assert wrong == []
    assert {"python", "torch", "sweep"} <= {row["check"] for row in shown["lines"]}
    assert done.stderr == ""


def test_a_trial_that_would_be_refused_is_no_ok(place: Place, capsys) -> None:
    assert doctor(place, "--quick", "logger.wandb.mode=online") == 1
    shown = capsys.readouterr().out
    assert "FAIL wandb-key" in shown
    assert "mend: wandb login" in shown
    assert "1 FAIL of the quick checks" in shown.splitlines()[-1]
    assert doctor(place, "--quick", "--json", "logger.wandb.mode=offline") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["level"] in ("OK", "WARN")
    assert set(answer["lines"][0]) == {"level", "what", "mend", "check", "where"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--job"], "--job: cluster=local runs trials on this machine"),
        (["--job", "--quick"], "--job, --quick"),
        (["--wait", "0"], "--wait 0: must be at least 1"),
        (["optimizer.lrr=1"], "did you mean 'lr'"),
    ],
)
def test_bad_input_is_one_line(place: Place, capsys, words: list[str], message: str) -> None:
    assert doctor(place, *words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert message in shown.err


def test_quick_is_quick_and_help_imports_nothing_heavy() -> None:
    seconds, _ = cpu_seconds(*SCRIPT, "doctor", "--quick")
    assert seconds < 2
    seconds, shown = cpu_seconds(sys.executable, "-X", "importtime", *SCRIPT[1:], "doctor", "-h")
    assert seconds < 1
    imported = {line.rpartition("|")[2].strip() for line in shown.splitlines()}
    assert not imported & {"torch", "hydra", "wandb", "optuna", "requests"}


# --- a check that fails or hangs


@pytest.fixture
def scope(place: Place, monkeypatch: pytest.MonkeyPatch) -> Scope:
    from mlmodeldev.settings.composition import compose_settings

    return Scope(compose_settings(), ROOT)


def test_an_error_in_a_check_is_its_own_warning(scope: Scope) -> None:
    def broken(scope: Scope) -> list[Line]:
        raise KeyError("nobody thought of this")

    checks = (Check("broken", broken), Check("next", lambda scope: [ok("fine")]))
    first, second = run.run_checks(scope, checks=checks)
    assert (first.level, first.check) == ("WARN", "broken")
    assert "KeyError: 'nobody thought of this'" in first.what
    assert first.mend
    assert (second.level, second.check) == ("OK", "next")


def test_a_check_that_hangs_is_left_behind(scope: Scope) -> None:
    never = threading.Event()
    checks = (
        Check("hangs", lambda scope: [ok(str(never.wait(60)))], seconds=0.1),
        Check("next", lambda scope: [ok("fine")]),
    )
    first, second = run.run_checks(scope, checks=checks)
    never.set()
    assert (first.level, first.check, second.what) == ("WARN", "hangs", "fine")


# --- before a submit


def test_submit_refuses_what_would_fail_and_names_the_mend(place: Place, capsys) -> None:
    runs = place.folder / "runs"
    words = [f"artefacts.runs_dir={runs}", "logger.wandb.mode=online"]
    assert slurm_train(["submit", "--sweep", str(place.sweep), *words]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 1
    assert shown[0].startswith("SlurmTrain.py: W&B: there is no key for")
    assert shown[0].endswith("; wandb login")
    assert not runs.exists()


def test_submit_warns_once_and_goes_on(place: Place, capsys) -> None:
    place.stubs(sbatch="echo 12")
    umask_of("0000")(place)
    place.patch.setenv("WANDB_API_KEY", "no-real-key-" + "0" * 28)  # submit itself tells of this
    words = ["cluster=generic", f"artefacts.runs_dir={place.folder}/runs", "--yes"]
    assert slurm_train(["submit", "--sweep", str(place.sweep), *words]) == 0
    shown = capsys.readouterr()
    assert "submitted: 12" in shown.out
    assert shown.err.count("umask 000: everybody may write what you write; umask 022") == 1
    assert shown.err.count("WANDB_API_KEY") == 1


@pytest.mark.project
def test_each_check_has_its_row_in_the_doc() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    assert [check.name for check in CHECKS if f"| `{check.name}` |" not in text] == []


def test_a_project_made_before_starts_as_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    """Its slurm/SlurmTrain.py imports ``main`` from here."""
    from mlmodeldev.doctor.command import main

    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "report" in capsys.readouterr().out
