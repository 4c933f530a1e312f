"""A user's own classes and settings are trained as they are: real trials of another project."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from tests.training.own_project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project.make(tmp_path_factory.mktemp("own") / "project")


def test_callbacks_trainer_arguments_nested_objects_and_own_groups(project):
    """Of `lightning`'s names, re-exported by a package, in mixed precision, with clipping."""
    project.write("conf/mine/default.yaml", "size: 5\n")
    config = project.root / "conf/config.yaml"
    config.write_text(config.read_text().replace("  - _self_\n", "  - mine: default\n  - _self_\n"))
    status, output, folder = project.train(
        "open",
        "model=net",
        "+model.hidden=${mine.size}",
        "+model.act={_target_: torch.nn.Softplus, beta: 3}",
        "callbacks.writer={_target_: zoo.nets.Writer, file: seen.txt}",
        "callbacks.writer.times=2",
        "training.trainer.val_check_interval=0.5",
        "training.precision=bf16-mixed",
    )
    assert status == 0, output
    # two epochs of two steps, a validation after each step, written twice
    assert (project.root / "seen.txt").read_text().split() == list("11223344")
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored["mine"] == {"size": 5}
    assert stored["model"] == {
        "_target_": "zoo.Net",
        "hidden": 5,
        "act": {"_target_": "torch.nn.Softplus", "beta": 3},
    }
    assert stored["training"]["trainer"] == {"val_check_interval": 0.5}
    with (folder / "metrics.csv").open() as file:
        assert len([row for row in csv.DictReader(file) if row["val_loss"]]) == 4
    assert json.loads((folder / "trial.json").read_text())["state"] == "done"

    status, output, _ = project.train("open", "model=net", "training.trainer.val_check_interval=1")
    assert status == 2
    assert "this folder holds a trial with model.hidden=5" in output


@pytest.mark.slow
def test_two_networks_take_turns_on_two_devices(project):
    status, output, folder = project.train(
        "gan",
        "model=gan",
        "training.devices=2",
        "training.strategy=ddp_find_unused_parameters_true",
        "training.gradient_clip_val=null",
    )
    assert status == 0, output
    assert json.loads((folder / "trial.json").read_text())["state"] == "done"


def test_a_rate_that_would_never_be_used_is_refused_before_anything_is_imported(project):
    status, output, folder = project.train("rate", "model=ownrate", "optimizer.lr=0.3")
    assert (status, output.strip()) == (
        2,
        "trainer.py: optimizer.lr=0.3: zoo.OwnRate makes its own optimizer;"
        " set model.learning_rate",
    )
    assert not folder.exists()
