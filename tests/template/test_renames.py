"""Settings that got another name, in the YAML files of a user."""

from __future__ import annotations

import pytest

from mlmodeldev.template.renames import package_of, rename_settings

RENAMES = {"training.nonfinite": "training.on_nan", "callbacks.cka.every": "callbacks.cka.each"}


@pytest.mark.parametrize(
    ("package", "text"),
    [
        ("training", "nonfinite: skip  # mine\nlr: 1\n"),
        ("", "training:\n  # as told\n  nonfinite: skip\n"),
        ("", "training: # mine\n\n  lr: 1\n  nonfinite:\n    a: 1\n"),
        ("", "parameters:\n  training.nonfinite:\n    value: skip\n"),
        ("", "parameters:\n  training:\n    parameters:\n      nonfinite: {value: a}\n"),
        ("", "x: ${training.nonfinite}\r\n# training.nonfinite"),
    ],
)
def test_a_name_is_replaced_and_all_else_stays(package: str, text: str) -> None:
    after = text.replace("nonfinite", "on_nan")
    assert rename_settings(text, package, RENAMES) == after
    assert rename_settings(after, package, RENAMES) == after


@pytest.mark.parametrize(
    ("package", "text"),
    [
        ("optimizer", "nonfinite: 1\n"),
        ("", "mytraining.nonfinite: 1\ntraining.nonfinites: 2\n"),
        ("", "training:\n  lr: 1\nother:\n  nonfinite: 2\n"),
        ("callbacks", "every: 3\n"),
    ],
)
def test_other_names_stay(package: str, text: str) -> None:
    assert rename_settings(text, package, RENAMES) == text


def test_only_the_key_at_its_place_is_replaced() -> None:
    text = "cka:\n  every: 2\nevery: 3"
    assert rename_settings(text, "callbacks", RENAMES) == "cka:\n  each: 2\nevery: 3"


def test_a_name_of_another_group_is_replaced_only_where_it_is_written_whole() -> None:
    renames = {"training.lr": "optimizer.lr"}
    text = "training:\n  lr: ${training.lr}\n"
    assert rename_settings(text, "", renames) == "training:\n  lr: ${optimizer.lr}\n"


@pytest.mark.parametrize(
    ("path", "text", "package"),
    [
        ("conf/config.yaml", "", ""),
        ("conf/training/mine.yaml", "", "training"),
        ("conf/hydra/help/x.yaml", "", "hydra.help"),
        ("conf/experiment/x.yaml", "# @package _global_\n", ""),
        ("conf/experiment/x.yaml", "# hello\n# @package training\n", "training"),
        ("sweep/config.yaml", "", ""),
    ],
)
def test_where_the_keys_of_a_file_belong(path: str, text: str, package: str) -> None:
    assert package_of(path, text) == package
