"""The trial's folder: its place, its configuration, and the record trial.json."""

from __future__ import annotations

import json

import pytest
import yaml

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.identity import identity
from mlmodeldev.trial.configuration import first_difference
from mlmodeldev.trial.folder import TrialFolder


@pytest.fixture
def open_trial(tmp_path):
    def call(*overrides: str, name: str | None = "trial") -> TrialFolder:
        overrides = (f"artefacts.runs_dir={tmp_path}/runs", *overrides)
        return TrialFolder.open(
            compose_settings([*overrides, f"artefacts.trial={name}"] if name else [*overrides])
        )

    return call


def test_the_folder_is_named_by_sweep_and_identity(open_trial, tmp_path):
    overrides = ("optimizer.lr=0.003", "artefacts.sweep=first")
    folder = open_trial(*overrides, name=None)
    assert folder.path == tmp_path / "runs" / "first" / identity({"optimizer.lr": 0.003})
    assert folder.id == folder.path.name
    assert (folder.path / "checkpoints").is_dir()
    assert open_trial(*overrides, "training.devices=1", name="by-hand").path.name == "by-hand"


def test_the_configuration_is_written_for_people_to_read(open_trial):
    folder = open_trial("optimizer.lr=1e-5", "model.hidden_size=32")
    written = yaml.safe_load((folder.path / "config.yaml").read_text())
    assert written["optimizer"]["lr"] == 1e-5
    assert written["model"]["hidden_size"] == 32
    assert list(written)[:2] == ["artefacts", "model"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=0.5", "optimizer.lr=0.002 (asked now: 0.5)"),
        ("model.hidden_size=32", "model.hidden_size=64 (asked now: 32)"),
        ("data.augment=false", "data.augment=True (asked now: False)"),
        ("training.seed=1", "training.seed=0 (asked now: 1)"),
        ("processing.batch_size=64", "processing.batch_size=32 (asked now: 64)"),
        ("training.accumulate_grad_batches=2", "accumulate_grad_batches=1 (asked now: 2)"),
        ("training.precision=bf16-mixed", "precision=32-true"),
        ("training.gradient_clip_val=null", "gradient_clip_val=1.0 (asked now: None)"),
        ("model=text_classifier", "model."),
    ],
)
def test_a_folder_of_another_configuration_is_refused(open_trial, override, message):
    before = (open_trial().path / "config.yaml").read_bytes()
    with pytest.raises(UsageError) as error:
        open_trial(override)
    text = str(error.value)
    assert message in text
    assert "artefacts.trial=NAME" in text
    assert "artefacts.fresh=true" in text
    assert "\n" not in text
    assert (open_trial().path / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "override",
    [
        "training.max_epochs=30",
        "training.devices=2",
        "training.num_nodes=2",
        "training.log_every_n_steps=1",
        "training.checkpoint_every_n_steps=5",
        "processing.num_workers=2",
        "logger=csv",
        "callbacks=none",
        "cluster.name=hec",
    ],
)
def test_what_says_where_and_how_long_may_change_when_a_trial_goes_on(open_trial, override):
    folder = open_trial()
    folder.update(state="interrupted")
    again = open_trial(override)
    assert again.read()["state"] == "interrupted"
    again.claim()
    group = override.partition("=")[0].partition(".")[0]
    written = yaml.safe_load((again.path / "config.yaml").read_text())
    assert written[group] == compose_settings([override]).model_dump()[group]


def test_a_fresh_start_moves_the_old_folder_aside(open_trial):
    first = open_trial()
    first.update(state="done")
    for _ in range(2):
        fresh = open_trial("artefacts.fresh=true", "optimizer.lr=0.5")
        assert fresh.read() == {}
        fresh.update(state="failed")
    sweep = first.path.parent
    states = {path.name: TrialFolder(path).read()["state"] for path in sweep.iterdir()}
    assert states == {"trial": "failed", ".trial.1": "done", ".trial.2": "failed"}


@pytest.mark.parametrize("text", ['{"state": "run', "", "[]", "null", "{}", "\0\0\0\0"])
def test_a_record_that_is_none_is_reported_and_left(open_trial, text):
    folder = open_trial()
    file = folder.path / "trial.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"trial\.json: is no record of a trial; move it away"):
        folder.read()
    with pytest.raises(UsageError, match="is no record"):
        folder.claim()
    assert file.read_text() == text


@pytest.mark.parametrize("text", ["model: {a: [1", "\x00"])
def test_a_mangled_configuration_is_reported(open_trial, text):
    (open_trial().path / "config.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"config\.yaml: is no configuration"):
        open_trial()


def test_an_update_changes_what_it_names_and_dates_itself(open_trial):
    folder = open_trial()
    folder.update(state="done", metric={"name": "val/accuracy", "value": 0.97})
    first = folder.read()
    folder.update(epoch=3)
    second = json.loads((folder.path / "trial.json").read_text())
    assert second.pop("updated") >= first.pop("updated")
    assert second == {**first, "epoch": 3}


def test_a_file_in_the_place_of_a_folder_is_reported(open_trial, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UsageError, match=r"/runs/single/trial: .* is a file"):
        open_trial()
    (tmp_path / "runs").unlink()
    (tmp_path / "runs" / "single" / "trial").mkdir(parents=True)
    (tmp_path / "runs" / "single" / "trial" / "checkpoints").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        open_trial()


def test_a_broken_link_and_a_long_name_are_reported(open_trial, tmp_path):
    (tmp_path / "runs").symlink_to(tmp_path / "scratch-that-is-gone")
    with pytest.raises(UsageError, match="broken link"):
        open_trial()
    (tmp_path / "runs").unlink()
    with pytest.raises(UsageError, match="the name is too long"):
        open_trial(name="x" * 300)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = TrialFolder.open(compose_settings(["artefacts.runs_dir='~/runs'"]))
    assert folder.path.is_relative_to(tmp_path / "runs")


def test_a_record_of_a_later_version_is_refused_in_one_line(open_trial):
    folder = open_trial("optimizer.lr=1e-5")
    folder.claim()
    file = folder.path / "trial.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "version": 99}))
    with pytest.raises(UsageError, match=r"written by a newer mlmodeldev \(version 99 of") as error:
        folder.read()
    assert "\n" not in str(error.value)


def test_a_trial_of_an_earlier_version_goes_on_under_todays_names(open_trial, capsys, monkeypatch):
    monkeypatch.setattr("mlmodeldev.settings.renamed._warned", set())
    before = open_trial("model.hidden_size=32", "artefacts.trial=old")
    file = before.path / "config.yaml"
    text = file.read_text()
    for new, old in (("hidden_size", "width"), ("num_layers", "depth"), ("num_heads", "heads")):
        text = text.replace(f"  {new}:", f"  {old}:")
    file.write_text(text)
    assert open_trial("model.width=32", "artefacts.trial=old").path == before.path
    assert "model.width is called model.hidden_size now" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"model\.hidden_size=32 \(asked now: 64\)"):
        open_trial("artefacts.trial=old")


def test_a_mapping_that_an_earlier_version_lacked_is_no_difference():
    old = {"training": {"seed": 1}, "callbacks": {"cka": {"enabled": True}}}
    new = {"training": {"seed": 1, "trainer": {}}, "callbacks": {"cka": {"enabled": False}}}
    assert first_difference(old, new) == ""
    new["training"]["trainer"] = {"min_epochs": 2}
    assert first_difference(old, new) == ("training.trainer=None (asked now: {'min_epochs': 2})")
    own = {**old, "callbacks": {"ema": {"_target_": "mine.EMA"}}}
    assert first_difference(old, own).startswith("callbacks.ema=None")
