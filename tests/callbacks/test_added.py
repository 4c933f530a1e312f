"""Callbacks of one's own: made from the settings, after ours, or refused in one line."""

from __future__ import annotations

import pytest
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import EarlyStopping, RichProgressBar

from mlmodeldev.callbacks.progress import ProgressReport
from mlmodeldev.callbacks.stack import make_callbacks
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.trial.folder import TrialFolder

LIGHTNING = "pytorch_lightning.callbacks"
STOP = f"callbacks.a={{_target_: {LIGHTNING}.EarlyStopping, monitor: val/loss}}"


class Mine(Callback):
    def __init__(self, size: int = 1) -> None:
        if size < 0:
            raise ValueError("a defect of the user's own")
        self.size = size


@pytest.fixture
def make(tmp_path):
    def call(*overrides: str) -> list[Callback]:
        settings = compose_settings([f"artefacts.runs_dir={tmp_path}", "logger=csv", *overrides])
        return make_callbacks(settings, TrialFolder.open(settings), LightningModule(), {})

    return call


def test_they_come_after_ours_in_the_order_of_the_settings(make):
    ours = make()
    stack = make(
        f"callbacks.stop={{_target_: {LIGHTNING}.EarlyStopping, monitor: val/loss}}",
        f"callbacks.mine={{_target_: {__name__}.Mine, size: 2}}",
        "callbacks.mine.size=3",
    )
    assert [type(each) for each in stack[:-2]] == [type(each) for each in ours]
    assert isinstance(stack[-2], EarlyStopping)
    assert stack[-2].monitor == "val/loss"
    assert stack[-1].size == 3
    assert callable(stack[-1].on_train_batch_end)  # its hooks are as Lightning made them


def test_null_leaves_one_out(make):
    # a file would say it; then the command line
    added = f"callbacks.mine={{_target_: {__name__}.Mine}}"
    assert len(make(added, "callbacks.mine=null")) == len(make())


def test_a_progress_bar_takes_the_place_of_ours(make):
    stack = make(f"callbacks.bar={{_target_: {LIGHTNING}.RichProgressBar}}")
    assert isinstance(stack[-1], RichProgressBar)
    assert not [each for each in stack if isinstance(each, ProgressReport)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["callbacks.a={_target_: no.such.Thing}"], r"callbacks.a: Error locating target"),
        ([f"callbacks.a={{_target_: {LIGHTNING}.EarlyStoping}}"], r"EarlyStoping' is importable"),
        (
            [f"callbacks.a={{_target_: {LIGHTNING}.EarlyStopping, monitr: x}}"],
            r"callbacks.a: .*monitr",
        ),
        (["callbacks.a={_target_: collections.Counter}"], "Counter: must be a Lightning Callback"),
        (
            [f"callbacks.{name}={{_target_: {__name__}.Mine}}" for name in "ab"],
            r"callbacks.b: has the same state_key \(Mine\) as callbacks.a",
        ),
        (
            ["training.patience=3", "training.monitor=val/loss", "training.mode=min", STOP],
            r"callbacks.a: has the same state_key",
        ),
    ],
)
def test_what_can_not_be_is_one_line(make, overrides, message):
    with pytest.raises(UsageError, match=message) as error:
        make(*overrides)
    assert "\n" not in str(error.value)


def test_a_defect_inside_of_the_class_keeps_its_traceback(make):
    with pytest.raises(ValueError, match="a defect of the user's own"):
        make(f"callbacks.mine={{_target_: {__name__}.Mine, size: -1}}")
