"""trainer.py as a user meets it: bad input answers at once, in a line, with torch never imported.

A package named torch that raises when imported stands first on the path, so any answer proves
that nothing heavy was touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.identity import identity

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trainer(tmp_path):
    """Run trainer.py where torch, Lightning and transformers can't be imported."""
    for name in ("torch", "pytorch_lightning", "transformers", "wandb"):
        (tmp_path / "fake" / name).mkdir(parents=True)
        (tmp_path / "fake" / name / "__init__.py").write_text(f"raise SystemExit('{name}!')")

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(tmp_path / "fake"), str(ROOT)])
        return subprocess.run(
            [sys.executable, str(ROOT / "trainer.py"), *arguments],
            env={**os.environ, "PYTHONPATH": paths, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("trainer.py: ")
    return done.stderr


def test_a_misspelt_key(trainer):
    text = one_line(trainer("optimizer.lrr=1"))
    assert "optimizer.lrr: no such setting; did you mean 'lr'?" in text


def test_a_misspelt_argument_of_the_model(trainer):
    text = one_line(trainer("+model.hiden_size=3"))
    assert "model.hiden_size: no such setting; did you mean 'hidden_size'?" in text


def test_a_value_out_of_range(trainer):
    assert "training.max_epochs=0: must be greater than" in one_line(
        trainer("training.max_epochs=0")
    )


def test_a_misspelt_choice_and_a_group_without_one(trainer):
    assert "did you mean 'adamw'?" in one_line(trainer("optimizer=adamx"))
    assert "must be one of" in one_line(trainer("model=null"))


def test_a_tie_to_a_setting_that_is_not_there(trainer):
    text = one_line(trainer("processing.batch_size=${training.nope}"))
    assert "training.nope" in text


def test_a_bad_value_among_several_trials(trainer):
    done = trainer("-m", "optimizer.lr=-1,0.1")
    assert "optimizer.lr=-1: must be greater than 0" in one_line(done)


def test_a_place_that_cannot_be_written_is_refused_before_anything_heavy(trainer, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    (tmp_path / "circle").symlink_to("circle")
    for place in ("file", "file/runs", "broken", "circle", "/sys/nowhere", "x" * 300):
        assert f"{place}/single/" in one_line(trainer(f"artefacts.runs_dir={place}"))


def test_help_and_the_configuration_are_shown(trainer):
    shown = trainer("--help")
    assert shown.returncode == 0, shown.stderr
    assert "max_epochs: 12" in shown.stdout
    assert "python trainer.py experiment=cola" in shown.stdout
    assert "optimizer: adamw, sgd" in shown.stdout
    printed = trainer("--cfg", "job", "optimizer=sgd")
    assert printed.returncode == 0, printed.stderr
    assert "name: sgd" in printed.stdout
    assert "lr: 0.1\n" in printed.stdout


PROBE = """
import sys, types
sys.path.insert(0, {root!r})
import hydra, json
from mlmodeldev.settings.command_line import call, run
from mlmodeldev.errors import TrialInterrupted
from mlmodeldev.errors import UsageError

def train(settings):
    {body}

@hydra.main(version_base="1.3", config_path={conf!r}, config_name="config")
def main(config): call(train, config)

run(main, train)
"""


@pytest.fixture
def program(tmp_path):
    """Run a program with an entry like trainer.py's, whose train() is the given statement."""

    def run(body: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "program.py"
        file.write_text(PROBE.format(root=str(ROOT), conf=str(ROOT / "conf"), body=body))
        return subprocess.run(
            [sys.executable, str(file), *arguments],
            env={**os.environ, "MLMODELDEV_PROJECT": str(ROOT), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


SHOW = "print(json.dumps([settings.processing.batch_size, settings.overrides]))"


def test_a_tie_has_the_identity_that_a_launcher_gives_it(program):
    arguments = ["processing.batch_size=${training.max_epochs}", "training.max_epochs=6"]
    batch, overrides = json.loads(program(SHOW, *arguments).stdout)
    assert batch == 6
    assert identity(overrides) == identity(compose_settings(arguments).overrides)
    assert overrides == compose_settings(arguments).overrides


def test_exit_status_tells_bad_input_from_interruption_and_failure(program):
    done = program("raise UsageError('no data here')")
    assert (done.returncode, done.stderr) == (2, "program.py: no data here\n")
    done = program("raise TrialInterrupted('by SIGTERM')")
    assert (done.returncode, done.stderr) == (75, "program.py: by SIGTERM\n")
    done = program("raise ValueError('a defect')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ValueError: a defect" in done.stderr


def test_a_process_of_the_same_trial_gets_its_settings_ready_made(program):
    settings = compose_settings(["processing.batch_size=48"])
    done = program(SHOW, "nonsense", MLMODELDEV_SETTINGS=settings.model_dump_json())
    assert json.loads(done.stdout) == [48, {"processing.batch_size": 48}]


def test_an_argument_that_no_file_lists_needs_no_plus(program):
    show = "print(settings.model['vocab_size'], settings.overrides['model.vocab_size'])"
    done = program(show, "model=text_classifier", "model.vocab_size=7")
    assert (done.stdout, done.stderr) == ("7 7\n", "")
