"""Loggers: imported only when chosen, several at once; and names of runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking.loggers import make_loggers
from mlmodeldev.tracking.metadata import at_most, description, run_name, short_name
from mlmodeldev.trial.folder import TrialFolder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make(tmp_path):
    def call(*overrides: str, first: bool = True):
        settings = compose_settings([f"artefacts.runs_dir={tmp_path}", *overrides])
        folder = TrialFolder.open(settings)
        return make_loggers(settings, folder, first), folder

    return call


def test_every_trial_has_its_metrics_file(make):
    loggers, folder = make("logger=csv")
    assert [type(logger).__name__ for logger in loggers] == ["MetricsFile"]
    assert loggers[0].file == folder.path / "metrics.csv"


def test_trackers_that_are_not_chosen_are_not_imported(tmp_path):
    code = f"""
import json, sys
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking.loggers import make_loggers
from mlmodeldev.trial.folder import TrialFolder
settings = compose_settings(["artefacts.runs_dir={tmp_path}", "logger=csv"])
make_loggers(settings, TrialFolder.open(settings))
print(json.dumps([name for name in ("wandb", "mlflow", "tensorboard") if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []


def test_a_run_rejoins_under_its_id_and_carries_its_settings(make, monkeypatch):
    import wandb

    calls = []
    monkeypatch.setattr(wandb, "init", lambda **options: calls.append(options))
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    options = ("logger.wandb.mode=offline", "optimizer.lr=0.25", "artefacts.sweep=first")
    loggers, folder = make(*options)
    make(*options)
    assert [logger.name for logger in loggers] == ["wandb", "metrics"]
    first, second = calls
    assert first["id"] == second["id"] == folder.read()["wandb_id"]
    assert first["id"].startswith(folder.id + "-")
    assert (first["mode"], first["resume"], first["group"]) == ("offline", "allow", "first")
    assert (first["name"], first["dir"]) == ("lr=0.25", str(folder.path))
    assert first["config"]["optimizer"]["lr"] == 0.25
    make(*options, "artefacts.fresh=true")  # another run, beside the old one
    assert calls[2]["id"] != first["id"]


def test_an_agents_run_id_is_kept(make, monkeypatch):
    import wandb

    calls = []
    monkeypatch.setattr(wandb, "init", lambda **options: calls.append(options))
    monkeypatch.setenv("WANDB_RUN_ID", "fromagent")
    _, folder = make("logger.wandb.mode=offline")
    assert calls[0]["id"] == folder.read()["wandb_id"] == "fromagent"


def test_only_the_first_process_talks_to_wandb(make, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **options: pytest.fail("a second run"))
    loggers, _ = make(first=False)
    assert [logger.name for logger in loggers] == ["wandb", "metrics"]
    loggers[0].experiment.log({"picture": 1})  # a model need not ask which process it is in


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({}, ""),
        ({"optimizer.lr": 0.003, "processing.batch_size": 32}, "lr=0.003 batch_size=32"),
        ({"model": "text_classifier"}, "model=text_classifier"),
        ({"a.width": 1, "b.width": 2, "c.x": 3}, "a.width=1 b.width=2 x=3"),
        ({"artefacts.trial": "t", "cluster.name": "hec", "logger": "csv", "x.y": 1}, "y=1"),
        ({"logger.wandb.project": "p", "callbacks.cka.enabled": False}, ""),
        ({"optimizer.lr": 0.00123456, "x.seed": 123456}, "lr=0.001235 seed=123456"),
        ({"optimizer.betas": [0.98765, 1e-12]}, "betas=[0.9877, 1e-12]"),
    ],
)
def test_a_name_says_what_was_changed_and_no_more(overrides, name):
    assert short_name(overrides) == name


@pytest.mark.parametrize(("length", "kept"), [(127, 127), (128, 128), (129, 119), (4000, 119)])
def test_a_name_is_as_long_as_wandb_takes_it(length, kept):
    text = "".join(chr(97 + number % 26) for number in range(length))
    name, other = at_most(text, 128), at_most(f"{text[:-1]}!", 128)
    assert len(name) == min(length, 128)
    assert (name[:kept], name != other) == (text[:kept], True)


def test_no_name_of_a_run_is_longer_than_wandb_takes_it():
    values = [f"optimizer.betas=[0.{'9' * 15},0.{'8' * 15}]", "optimizer.lr=0.0123456789"]
    long = "s" * 180
    shown = description(compose_settings([*values, f"artefacts.sweep={long}"]), {})
    other = description(compose_settings([*values, f"artefacts.sweep={long}x"]), {})
    assert shown["group"] != other["group"]
    assert max(len(shown[what]) for what in ("name", "group")) <= 128
    assert max(map(len, shown["tags"])) <= 64
    with pytest.raises(UsageError, match=r"logger.wandb.project=.*at most 128"):
        compose_settings([f"logger.wandb.project={'p' * 129}"])


def test_a_run_of_defaults_has_a_name():
    assert run_name(compose_settings()) == "default"
    assert run_name(compose_settings(["optimizer.lr=0.25"])) == "lr=0.25"
