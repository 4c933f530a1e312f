"""What the callback refuses, in one line that names it, before anything is trained."""

from __future__ import annotations

import warnings

import pytest

from mlmodeldev.alignment.callback import CKACallback
from mlmodeldev.errors import UsageError
from tests.alignment.towers import COMPARE, Towers, fit

warnings.filterwarnings("ignore", module="pytorch_lightning")


@pytest.mark.parametrize(
    "compare, message",
    [
        ({}, "compare is empty"),
        ({"x": {"b": "image.*"}}, "lacks the key 'a'"),
        ({"x": {"a": "image.*", "agianst": "start"}}, "did you mean 'against'"),
        ({"x": {"a": "image.*", "against": "strat"}}, "did you mean 'start'"),
        ({"x/y": {"a": "image.*"}}, "the name 'x/y'"),
        ({"x": {"a": []}}, "must name layers"),
        ({"x": "image.*"}, "must have entries"),
    ],
)
def test_bad_comparisons_are_named(tmp_path, compare, message):
    with pytest.raises(UsageError, match=message):
        CKACallback(compare, tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"every_n_epochs": 0}, "every_n_epochs=0"),
        ({"max_batches": 0}, "max_batches=0"),
        ({"estimator": "bias"}, "did you mean 'biased'"),
        ({"pooling": "meen"}, "did you mean 'mean'"),
    ],
)
def test_bad_settings_are_named(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        CKACallback(COMPARE, tmp_path, **options)


def test_unknown_layers_are_named_before_training(tmp_path):
    module = Towers()
    with pytest.raises(
        UsageError, match=r"no layer of Towers matches 'imgae.0'; did you mean 'image.0'"
    ):
        fit(tmp_path, CKACallback({"x": {"a": "imgae.0"}}, tmp_path), module=module)
    assert module.losses == []
