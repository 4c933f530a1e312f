"""Each check passes what is right, and fails what is wrong in its own way, in a paragraph."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlmodeldev.testing import CheckFailed
from tests.testing.projects import CHECKS, checked, write_project

WRONG_LAYER = "+callbacks.cka.compare.pair={a: nett.0}"
WRONG = (
    ("Unlearning", "learns_one_batch", "does not learn one batch by heart"),
    ("Lossless", "learns_one_batch", "No loss to look at"),
    ("Unseeded", "resumes_exactly", "Two undisturbed trials with one seed"),
    ("Forgetful", "resumes_exactly", "is not in the checkpoint"),
    ("Late", "exports_load_back", "the constructor alone must make every layer"),
    ("Crowded", "outputs_rest_on_the_example", "what norm gives .* the other examples"),
    ("Sixteen", "outputs_rest_on_the_example", "but not on a part of it"),
    ("Immobile", "runs_on_any_device", "a tensor that stays on the CPU"),
    ("OnCuda", "runs_on_any_device", "names a GPU"),
)
ALONE = ("OnCuda", "Lossless")
"""No trial of these runs here: there is no GPU, and a trial wants a loss."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project") / "mine")


def test_a_right_model_passes_all(root: Path, tmp_path: Path) -> None:
    project = checked(root, tmp_path, "Right", "+callbacks.cka.compare.pair={a: net.*, b: head}")
    for check in CHECKS:
        getattr(project, check)()


@pytest.mark.parametrize(("kind", "check", "message"), WRONG)
def test_a_wrong_model_is_named(
    root: Path, tmp_path: Path, kind: str, check: str, message: str
) -> None:
    with pytest.raises(CheckFailed, match=message):
        getattr(checked(root, tmp_path, kind), check)()


def test_a_layer_that_is_not_there_is_named_with_the_nearest(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"compare.pair: no layer of Right .* mean 'net.0'"):
        checked(root, tmp_path, "Right", WRONG_LAYER).cka_layers_exist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "own", "more"),
    [
        *((kind, check, ()) for kind, check, _ in WRONG if kind not in ALONE),
        ("Right", "cka_layers_exist", (WRONG_LAYER,)),
    ],
)
def test_the_other_checks_pass_it(
    root: Path, tmp_path: Path, kind: str, own: str, more: tuple[str, ...]
) -> None:
    project = checked(root, tmp_path, kind, *more)
    for check in CHECKS:
        if check != own:
            getattr(project, check)()


def test_a_trial_that_is_too_short_to_be_killed_is_named(root: Path, tmp_path: Path) -> None:
    short = checked(root, tmp_path, "Right", "training.max_steps=2")
    with pytest.raises(CheckFailed, match="2 training batches in all, too few"):
        short.resumes_exactly()


def test_bad_settings_and_errors_of_the_users_code_are_shown(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"hiden.*did you mean 'hidden'"):
        checked(root, tmp_path, "Right", "+model.hiden=3").cka_layers_exist()
    with pytest.raises(CheckFailed, match=r"(?s)Traceback.*model.py"):
        checked(root, tmp_path, "Right", "+model.hidden=-1").cka_layers_exist()
