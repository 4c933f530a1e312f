"""Old names of settings and classes: they go on working, and identities stay."""

from __future__ import annotations

import shutil

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.project import project_root
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.identity import identity
from mlmodeldev.settings.renamed import current_arguments, current_configuration

OLD = {"model.width": 32, "model.depth": 1, "model.heads": 2, "optimizer.lr": 0.01}
NEW = {"model.hidden_size": 32, "model.num_layers": 1, "model.num_heads": 2, "optimizer.lr": 0.01}


@pytest.fixture
def unwarned(monkeypatch):
    monkeypatch.setattr("mlmodeldev.settings.renamed._warned", set())


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, for a test to change."""
    root = tmp_path / "project"
    shutil.copytree(project_root() / "conf", root / "conf")
    for name in ("model.py", "datamodule.py"):
        shutil.copy(project_root() / name, root)
    monkeypatch.setenv("MLMODELDEV_PROJECT", str(root))
    return root


def test_both_names_make_one_identity() -> None:
    assert identity(NEW) == identity(OLD)
    assert identity({**NEW, "model": "text_classifier"}) == identity(
        {**OLD, "model": "text_classifier"}
    )
    assert identity({"model": {"hidden_size": 32}}) == identity({"model.width": 32})


def test_arguments_of_other_models_are_not_renamed() -> None:
    own = {"model": "mine", "model.hidden_size": 32}
    assert identity(own) != identity({"model": "mine", "model.width": 32})
    both = {"model.hidden_size": 32, "model.width": 16}
    assert identity(both) != identity({"model.width": 32})
    assert identity(both) != identity({"model.hidden_size": 16, "model.width": 32})


def test_an_old_name_on_the_command_line_is_taken_with_one_line(unwarned, capsys) -> None:
    for _ in range(2):
        settings = compose_settings([f"{key}={value}" for key, value in OLD.items()])
    assert (settings.model["hidden_size"], settings.model["num_layers"]) == (32, 1)
    assert settings.overrides == NEW
    assert capsys.readouterr().err.splitlines() == [
        "warning: model.width is called model.hidden_size now",
        "warning: model.depth is called model.num_layers now",
        "warning: model.heads is called model.num_heads now",
    ]


def test_an_argument_that_only_the_data_fill_has_its_old_name_too(unwarned, capsys) -> None:
    assert compose_settings(["+model.vocabulary=500"]).model["vocab_size"] == 500


def test_a_projects_own_argument_of_the_old_name_is_left_alone(project, capsys) -> None:
    (project / "model.py").write_text("class Net:\n    def __init__(self, width: int = 3): ...\n")
    (project / "conf" / "model" / "mine.yaml").write_text("_target_: model.Net\nwidth: 3\n")
    settings = compose_settings(["model=mine", "model.width=5"])
    assert settings.model["width"] == 5
    assert settings.overrides == {"model": "mine", "model.width": 5}
    assert capsys.readouterr().err == ""


def test_a_class_that_has_moved_is_taken_from_where_it_is(project) -> None:
    chosen = project / "conf" / "model" / "text_classifier.yaml"
    chosen.write_text("_target_: model.TextClassifier\n")
    settings = compose_settings(["model=text_classifier"])
    assert settings.model["_target_"] == "examples.text_classifier.TextClassifier"
    with (project / "model.py").open("a") as file:
        file.write("\n\nclass TextClassifier:\n    def __init__(self): ...\n")
    assert compose_settings(["model=text_classifier"]).model["_target_"] == "model.TextClassifier"
    with pytest.raises(UsageError, match="no such setting"):
        compose_settings(["model=text_classifier", "+model.more=1"])


def test_records_of_earlier_trials_are_read_by_todays_names() -> None:
    old = {"model": {"_target_": "model.TextClassifier", "width": 8, "dropout": 0.1}, "seed": 1}
    assert current_configuration(old, ["hidden_size", "dropout"]) == {
        "model": {
            "_target_": "examples.text_classifier.TextClassifier",
            "hidden_size": 8,
            "dropout": 0.1,
        },
        "seed": 1,
    }
    assert current_arguments({"width": 8}, ["width"]) == {"width": 8}
    assert current_arguments({"classes": 2, "x": 1}, ["num_classes"]) == {"num_classes": 2, "x": 1}
